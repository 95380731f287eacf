/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * belfry-net: a network card as a vhost-user device. Command line and order of set-up; control context. What
 * can be found out to be wrong is found out before a socket exists.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "devices/common/log.h"
#include "devices/common/postcopy.h"
#include "devices/common/program.h"

#define MIN_QUEUE_SIZE 16

enum { NOTIFY_EVENTFD, NOTIFY_DOORBELL, NOTIFY_POLL };
static const char *const notify_words[] = { "eventfd", "doorbell", "poll", NULL };

struct net_options {
	const char *tap, *mac;
	bool slirp, sw, loopback, sink, drop;
	struct option_list sockets, forwards;
	int queues, queue_size, num_threads, mtu;
	int notify;
	bool offer_config, postcopy;
};

/* All devices of the process: one, or with --switch one for each socket. */
struct net {
	const struct net_options *opt;
	struct net_switch *sw;
	struct worker *workers[BF_MAX_QUEUES];
	unsigned nr_workers;
	struct net_device *devices[PORT_SWITCH_MAX];
	unsigned nr_devices;
	uint8_t mac[NET_MAC_LEN];
};

static bool parse(int argc, char *argv[], struct program_options *common, struct net_options *opt,
		  int *status)
{
	struct option_spec common_specs[PROGRAM_NR_OPTIONS];
	const struct option_spec ports[] = {
		{ "slirp", OPTION_FLAG, &opt->slirp, NULL, 0, 0, NULL,
		  "user networking, without any right (the default)" },
		{ "hostfwd", OPTION_LIST, &opt->forwards, "RULE", 0, 0, NULL,
		  "with --slirp, forward a port of the host, as in tcp::8022-:22" },
		{ "tap", OPTION_TEXT, &opt->tap, "NAME", 0, 0, NULL,
		  "a TAP interface, which is made if it does not exist" },
		{ "switch", OPTION_FLAG, &opt->sw, NULL, 0, 0, NULL,
		  "a learning switch between the guests of all --socket-path" },
		{ "loopback", OPTION_FLAG, &opt->loopback, NULL, 0, 0, NULL,
		  "what a guest sends comes back to it (for measurement)" },
		{ "sink", OPTION_FLAG, &opt->sink, NULL, 0, 0, NULL,
		  "what a guest sends is copied, counted and dropped (for measurement)" },
		{ "drop", OPTION_FLAG, &opt->drop, NULL, 0, 0, NULL,
		  "what a guest sends is counted and dropped unread (for measurement)" },
	};
	const struct option_spec specs[] = {
		{ "queues", OPTION_NUMBER, &opt->queues, "N", 1, BF_MAX_QUEUES / 2, NULL,
		  "pairs of queues (1)" },
		{ "queue-size", OPTION_NUMBER, &opt->queue_size, "N", MIN_QUEUE_SIZE,
		  BF_MAX_QUEUE_SIZE, NULL, "most entries of a queue, a power of two (1024)" },
		{ "num-threads", OPTION_NUMBER, &opt->num_threads, "N", 1, BF_MAX_QUEUES, NULL,
		  "threads that serve the pairs (one for each; 1 with --slirp and --switch)" },
		{ "notify", OPTION_CHOICE, &opt->notify, "HOW", 0, 0, notify_words,
		  "eventfd: sleep until kicked (default); doorbell: give the guest a page per "
		  "queue and poll it; poll: look at the rings all the time" },
		{ "mtu", OPTION_NUMBER, &opt->mtu, "BYTES", 68, 65521, NULL,
		  "the largest that a front end may set; of --slirp, the size of its packets" },
		{ "offer-config", OPTION_FLAG, &opt->offer_config, NULL, 0, 0, NULL,
		  "offer the configuration space too (QEMU 7.1 to 8.0 crash on it)" },
		{ "mac", OPTION_TEXT, &opt->mac, "ADDRESS", 0, 0, NULL,
		  "with --offer-config, the guest's address" },
		postcopy_option(&opt->postcopy),
	};
	const struct option_group groups[] = {
		{ "Connection", common_specs, PROGRAM_NR_OPTIONS },
		{ "Port", ports, sizeof(ports) / sizeof(ports[0]) },
		{ "Card", specs, sizeof(specs) / sizeof(specs[0]) },
	};
	const struct option_table table = {
		.program = "belfry-net",
		.usage = "{--socket-path=PATH [--client] | --fd=FDNUM} [PORT] [OPTION]...",
		.summary = "Serve a network card to a virtual machine over vhost-user.",
		.capabilities = "{\"type\": \"net\", \"features\": []}",
		.groups = groups,
		.nr_groups = 3,
	};

	program_options(common, common_specs);
	program_options_several(common_specs, &opt->sockets);
	return options_parse(&table, argc, argv, status);
}

static int usage(const char *option, const char *expected, const char *found)
{
	log_error("%s: expected %s, found %s", option, expected, found);
	return OPTIONS_EXIT_USAGE;
}

static bool parse_mac(const char *text, uint8_t mac[NET_MAC_LEN])
{
	char end;

	return strlen(text) == 17 &&
	       sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%c", &mac[0], &mac[1], &mac[2],
		      &mac[3], &mac[4], &mac[5], &end) == NET_MAC_LEN &&
	       !(mac[0] & 1);
}

static int check(struct net_options *opt, struct net *net)
{
	int nr = opt->slirp + opt->sw + opt->loopback + opt->sink + opt->drop + !!opt->tap;

	if (nr > 1)
		return usage("port",
			     "one of --slirp, --tap, --switch, --loopback, --sink and --drop",
			     "several");
	if (!nr)
		opt->slirp = true;
	if (opt->forwards.nr && !opt->slirp)
		return usage("--hostfwd", "--slirp, to which it belongs", "another port");
	if (opt->sockets.nr > 1 && !opt->sw)
		return usage("--socket-path", "one, or --switch to connect several", "several");
	if (opt->postcopy && opt->sw)
		return usage("--postcopy", "one guest to a process, as it waits for its memory",
			     "--switch");
	if (opt->queue_size & (opt->queue_size - 1))
		return usage("--queue-size", "a power of two", "something else");
	if (opt->mac && !opt->offer_config)
		return usage("--mac", "--offer-config, without which no front end sees it", "none");
	if (opt->mac && !parse_mac(opt->mac, net->mac))
		return usage("--mac", "an address such as 52:54:00:12:34:56 that is not a group's",
			     opt->mac);
	return 0;
}

static int make_workers(struct net *net)
{
	const struct net_options *opt = net->opt;
	static const enum worker_mode modes[] = { WORKER_EVENTFD, WORKER_DOORBELL, WORKER_POLL };
	unsigned nr = opt->slirp || opt->sw ? 1 : (unsigned)opt->queues;
	int ret;

	if (opt->num_threads)
		nr = (unsigned)opt->num_threads;
	for (; net->nr_workers < nr; net->nr_workers++) {
		ret = worker_new(modes[opt->notify], "net", net->nr_workers,
				 &net->workers[net->nr_workers]);
		if (ret) {
			log_error("cannot start thread %u: %s", net->nr_workers, strerror(-ret));
			return ret;
		}
	}
	return 0;
}

static int make_port(struct net *net, struct net_port **port)
{
	const struct net_options *opt = net->opt;
	int ret;

	if (opt->tap)
		ret = port_tap_new(opt->tap, (unsigned)opt->queues, port);
	else if (opt->sw)
		ret = port_switch_new(net->sw, port);
	else if (opt->loopback)
		ret = port_loopback_new(port);
	else if (opt->sink || opt->drop)
		ret = port_sink_new((unsigned)opt->queues, opt->sink, port);
	else
		ret = port_slirp_new(opt->forwards.items, opt->forwards.nr, (unsigned)opt->mtu,
				     port);
	if (ret == -ENOMEM || ret == -E2BIG)
		log_error("cannot make port %u: %s", net->nr_devices, strerror(-ret));
	return ret;
}

static int make_device(struct net *net)
{
	const struct net_options *opt = net->opt;
	struct net_device_config config = {
		.nr_pairs = (unsigned)opt->queues,
		.queue_size = (uint16_t)opt->queue_size,
		.workers = net->workers,
		.nr_workers = net->nr_workers,
		.first_worker = net->nr_devices * (unsigned)opt->queues,
		.doorbells = opt->notify == NOTIFY_DOORBELL,
		.polled = opt->notify == NOTIFY_POLL,
		.postcopy = opt->postcopy,
		.mtu = (unsigned)opt->mtu,
		.offer_config = opt->offer_config,
		.has_mac = opt->mac,
	};
	char name[16];
	int ret = make_port(net, &config.port);

	if (ret)
		return ret;
	snprintf(name, sizeof(name), "net%u", net->nr_devices);
	config.name = name;
	memcpy(config.mac, net->mac, sizeof(config.mac));
	/* Each guest of a switch has one of its own. */
	config.mac[5] = (uint8_t)(config.mac[5] + net->nr_devices);
	ret = net_device_new(&config, &net->devices[net->nr_devices]);
	net->nr_devices += !ret;
	return ret;
}

static int make_all(struct net *net)
{
	unsigned nr = net->opt->sockets.nr ? net->opt->sockets.nr : 1;
	int ret = make_workers(net);

	if (!ret && net->opt->sw)
		ret = net_switch_new(&net->sw);
	while (!ret && net->nr_devices < nr)
		ret = make_device(net);
	return ret;
}

static void free_all(struct net *net)
{
	while (net->nr_devices)
		net_device_free(net->devices[--net->nr_devices]);
	net_switch_free(net->sw);
	while (net->nr_workers)
		worker_free(net->workers[--net->nr_workers]);
}

/* The first device's fields, and all of them in a list where there can be several. */
static json_t *stats(void *opaque)
{
	const struct net *net = opaque;
	json_t *root = json_pack("{s:s, s:s}", "program", "belfry-net", "version", BELFRY_VERSION);
	json_t *devices = json_array();

	for (unsigned i = 0; i < net->nr_devices; i++) {
		json_t *device = net_device_stats(net->devices[i]);

		if (!i)
			json_object_update(root, device);
		json_array_append_new(devices, device);
	}
	if (!net->opt->sw)
		json_decref(devices);
	else
		json_object_set_new(root, "devices", devices);
	return root;
}

static int serve(struct program_options *common, struct net *net)
{
	struct program_seat seats[PORT_SWITCH_MAX];
	struct program program = { .opt = common,
				   .be = net_device_backend(net->devices[0]),
				   .stats = stats,
				   .device_fd = -1,
				   .postcopy = net->opt->postcopy,
				   .more = seats,
				   .opaque = net };

	for (unsigned i = 1; i < net->nr_devices; i++)
		seats[program.nr_more++] =
			(struct program_seat){ net->opt->sockets.items[i],
					       net_device_backend(net->devices[i]) };
	return program_run(&program);
}

int main(int argc, char *argv[])
{
	struct program_options common = PROGRAM_OPTIONS_DEFAULT;
	struct net_options opt = { .queues = 1, .queue_size = 1024 };
	static struct net net;
	int status;

	program_start("belfry-net");
	if (!parse(argc, argv, &common, &opt, &status))
		return status;
	if (opt.sockets.nr)
		common.socket_path = opt.sockets.items[0];
	status = program_check(&common);
	if (!status)
		status = check(&opt, &net);
	if (!status)
		status = postcopy_check(opt.postcopy);
	if (status)
		return status;
	net.opt = &opt;
	status = make_all(&net) ? EXIT_FAILURE : serve(&common, &net);
	free_all(&net);
	return status;
}
