# SPDX-License-Identifier: BSD-3-Clause
# gnuplot: out/bench.svg from out/bench-*.dat. `folder` and
# `panels` (of net and blk) are given on the command line.
set terminal svg size 1300,450*words(panels) font "sans-serif,11" background rgb "white"
set output folder."/bench.svg"
set multiplot layout words(panels),1
set style data histograms
set style histogram clustered gap 1.5
set style fill solid 0.9 border -1
set boxwidth 0.9
set grid ytics lt 1 lc rgb "#dddddd"
set xtics nomirror scale 0
set key top right horizontal
set bmargin 5
set yrange [0:*]

if (strstrt(panels, "net")) {
set title "64-byte packets, one core each side, driver: DPDK virtio_user" noenhanced
set ylabel "Mpps"
plot folder."/bench-net.dat" using 2:xtic(1) title "belfry-net" lc rgb "#1b6ca8", \
     "" using 3 title "DPDK net_vhost" noenhanced lc rgb "#c9c9c9"
}
if (strstrt(panels, "blk")) {
set title "4 KiB random reads, driver: libbelfry"
set ylabel "IOPS"
set logscale y
set yrange [1000:3e7]
set format y "10^{%L}"
set xtics font ",8"
plot folder."/bench-blk.dat" using 2:xtic(1) title "belfry-blk" lc rgb "#1b6ca8", \
     "" using 3 title "qemu-storage-daemon" lc rgb "#c9c9c9"
}
unset multiplot
