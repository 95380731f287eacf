/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Opens, checks and locks the image. Control context, at start. Nothing here runs while requests
 * are served: the size is read once, and a file that is cut later gives I/O errors.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devices/common/log.h"
#include "image.h"

/* More than a page is the file system's wish for read-ahead, not what it can write at once. */
#define MAX_PHYSICAL_SIZE 4096u

#define LOCK_PATIENCE_MS 1000

static const char *kind_of(mode_t mode)
{
	if (S_ISDIR(mode))
		return "a directory";
	if (S_ISCHR(mode))
		return "a character device";
	if (S_ISFIFO(mode))
		return "a pipe";
	return "something else";
}

static int check_kind(const char *path, const struct stat *st)
{
	if (S_ISREG(st->st_mode) || S_ISBLK(st->st_mode))
		return 0;
	log_error("%s: expected a regular file or a block device, found %s", path,
		  kind_of(st->st_mode));
	return -ENOTBLK;
}

static int open_file(const char *path, bool read_only)
{
	struct stat st;
	int fd;

	/* Before opening: open() of a pipe would wait, and O_NONBLOCK would stay on the file. */
	if (stat(path, &st)) {
		log_error("%s: cannot use the image: %s", path, strerror(errno));
		return -errno;
	}
	if (check_kind(path, &st))
		return -ENOTBLK;
	fd = open(path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY);
	if (fd < 0) {
		int error = errno;

		log_error("%s: cannot open the image for %s: %s%s", path,
			  read_only ? "reading" : "writing", strerror(error),
			  !read_only && (error == EACCES || error == EROFS || error == EPERM)
				  ? " (--read-only needs no permission to write)"
				  : "");
		return -error;
	}
	return fd;
}

/*
 * The kernel closes the files of an io_uring some time after the process has ended: whoever is restarted
 * at once finds the image locked by its predecessor, and waits a little.
 */
static int take_lock(int fd, struct flock *range)
{
	for (int left_ms = LOCK_PATIENCE_MS; fcntl(fd, F_OFD_SETLK, range); left_ms -= 10) {
		if (errno != EAGAIN && errno != EACCES)
			return -errno;
		if (left_ms <= 0)
			return -EBUSY;
		poll(NULL, 0, 10);
	}
	return 0;
}

/* Two writers ruin a file system. One writer alone, or any number of readers. */
static int lock(int fd, const char *path, bool read_only)
{
	struct flock range = { .l_type = read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET };
	int ret = take_lock(fd, &range);

	if (ret == -EBUSY)
		log_error("%s: the image is in use by another program%s", path,
			  read_only ? " that writes to it; stop that one first"
				    : "; stop that one first, or use --read-only on both sides");
	else if (ret)
		log_warn("%s: cannot be locked against a second writer: %s", path, strerror(-ret));
	return ret == -EBUSY ? ret : 0;
}

static int file_geometry(struct blk_image *image, uint64_t *size)
{
	struct stat st;

	if (fstat(image->fd, &st))
		return -errno;
	*size = (uint64_t)st.st_size;
	image->physical_size = st.st_blksize > 0 ? (uint32_t)st.st_blksize : BLK_SECTOR_SIZE;
	return 0;
}

static int device_geometry(struct blk_image *image, uint64_t *size)
{
	unsigned physical = 0, optimal = 0;

	if (ioctl(image->fd, BLKGETSIZE64, size))
		return -errno;
	/* Advice only: a device that does not know leaves it at 0. */
	if (!ioctl(image->fd, BLKPBSZGET, &physical))
		image->physical_size = physical;
	if (!ioctl(image->fd, BLKIOOPT, &optimal))
		image->optimal_size = optimal;
	return 0;
}

/* The exponent in config space needs a power of two, of at least a sector. */
static uint32_t usable_physical_size(uint32_t size)
{
	if (size < BLK_SECTOR_SIZE || (size & (size - 1)))
		return BLK_SECTOR_SIZE;
	return size > MAX_PHYSICAL_SIZE ? MAX_PHYSICAL_SIZE : size;
}

static int read_geometry(struct blk_image *image, const char *path)
{
	uint64_t size = 0;
	struct stat st;
	int ret;

	if (fstat(image->fd, &st))
		return -errno;
	ret = check_kind(path, &st);
	if (ret)
		return ret;
	ret = S_ISBLK(st.st_mode) ? device_geometry(image, &size) : file_geometry(image, &size);
	if (ret) {
		log_error("%s: cannot find out the size: %s", path, strerror(-ret));
		return ret;
	}
	if (!size || size % BLK_SECTOR_SIZE) {
		log_error("%s: expected a size that is a multiple of %u bytes, found %" PRIu64
			  " bytes; \"truncate -s %%512\" on a copy rounds it up",
			  path, BLK_SECTOR_SIZE, size);
		return -EINVAL;
	}
	image->nr_sectors = size / BLK_SECTOR_SIZE;
	image->physical_size = usable_physical_size(image->physical_size);
	return 0;
}

int blk_image_open(struct blk_image *image, const char *path, bool read_only, bool locking)
{
	struct blk_image opened = { .read_only = read_only };
	int ret;

	opened.fd = open_file(path, read_only);
	if (opened.fd < 0)
		return opened.fd;
	ret = read_geometry(&opened, path);
	if (!ret && locking)
		ret = lock(opened.fd, path, read_only);
	if (ret) {
		blk_image_close(&opened);
		return ret;
	}
	*image = opened;
	return 0;
}

int blk_image_null(struct blk_image *image, uint64_t size, bool read_only)
{
	if (!size || size % BLK_SECTOR_SIZE) {
		log_error("--null: expected a size that is a multiple of %u bytes, found %" PRIu64,
			  BLK_SECTOR_SIZE, size);
		return -EINVAL;
	}
	*image = (struct blk_image){ .fd = -1,
				     .read_only = read_only,
				     .nr_sectors = size / BLK_SECTOR_SIZE,
				     .physical_size = BLK_SECTOR_SIZE };
	return 0;
}

void blk_image_close(struct blk_image *image)
{
	if (image->fd >= 0)
		close(image->fd);
	*image = (struct blk_image)BLK_IMAGE_NONE;
}
