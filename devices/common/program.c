/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Life cycle and main loop of a back-end program: this is the control context. It owns the signals,
 * the sockets, and the --stats file; queue threads belong to the device. Each back end (seat) serves one
 * connection at a time, others wait in its backlog.
 *
 * Connections come from a socket that it listens on or was given, or with --client from a connector.
 * Either is one fd to poll while no front end is there.
 *
 * SIGTERM and SIGINT end it, SIGUSR1 writes the statistics. All come by signalfd, so that nothing
 * runs in a handler.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <belfry/socket.h>

#include "connector.h"
#include "hangup.h"
#include "listener.h"
#include "log.h"
#include "program.h"
#include "ready.h"
#include "stats.h"

/* One back end and where its connections come from. */
struct seat {
	struct bf_backend *be;
	struct listener listener;
	struct connector connector;
	bool postcopy;
	struct hangup hangup; /* of the connection that is there, with postcopy */
};

struct loop {
	const struct program *program;
	struct seat seats[PROGRAM_MAX_SEATS];
	unsigned nr_seats;
	int signal_fd;
	bool ending;
	int status;
};

static const char *const log_levels[] = { "error", "warn", "info", "debug", "trace", NULL };

void program_options(struct program_options *opt, struct option_spec specs[PROGRAM_NR_OPTIONS])
{
	const struct option_spec all[PROGRAM_NR_OPTIONS] = {
		{ .name = "socket-path",
		  .kind = OPTION_TEXT,
		  .value = &opt->socket_path,
		  .arg = "PATH",
		  .help = "listen on this UNIX socket" },
		{ .name = "client",
		  .kind = OPTION_FLAG,
		  .value = &opt->client,
		  .help = "connect to --socket-path instead, and try until somebody listens" },
		{ .name = "fd",
		  .kind = OPTION_NUMBER,
		  .value = &opt->fd,
		  .arg = "FDNUM",
		  .max = 1 << 20,
		  .help = "serve this socket: a listening or a connected one" },
		{ .name = "socket-mode",
		  .kind = OPTION_OCTAL,
		  .value = &opt->socket_mode,
		  .arg = "MODE",
		  .max = 0777,
		  .help = "permissions of the socket (0600)" },
		{ .name = "one-off",
		  .kind = OPTION_FLAG,
		  .value = &opt->one_off,
		  .help = "exit when the first connection ends" },
		{ .name = "ready-fd",
		  .kind = OPTION_NUMBER,
		  .value = &opt->ready_fd,
		  .arg = "FDNUM",
		  .max = 1 << 20,
		  .help = "write a line to it when listening, or trying to connect" },
		{ .name = "stats",
		  .kind = OPTION_TEXT,
		  .value = &opt->stats,
		  .arg = "FILE",
		  .help = "write counters there at exit and on SIGUSR1" },
		{ .name = "log-level",
		  .kind = OPTION_CHOICE,
		  .value = &opt->log_level,
		  .arg = "LEVEL",
		  .choices = log_levels,
		  .help = "error, warn, info (default), debug or trace" },
	};

	memcpy(specs, all, sizeof(all));
}

static void our_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGUSR1);
}

void program_options_several(struct option_spec specs[PROGRAM_NR_OPTIONS],
			     struct option_list *sockets)
{
	specs[0].kind = OPTION_LIST;
	specs[0].value = sockets;
}

void program_start(const char *name)
{
	sigset_t set;

	log_init(name);
	our_signals(&set);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN); /* a peer that went away is an errno */
	if (bf_memory_guard())
		log_warn("a file of guest memory that shrinks will end this program: %s",
			 strerror(errno));
}

/* Where connections come from: exactly one place. */
static int check_socket_options(const struct program_options *opt)
{
	int inherited = ready_inherited_socket();
	int nr = !!opt->socket_path + (opt->fd >= 0) + (inherited != -ENOENT);

	if (inherited == -E2BIG) {
		log_error("expected one socket from systemd, found LISTEN_FDS=%s; "
			  "give each service its own .socket unit",
			  getenv("LISTEN_FDS"));
		return OPTIONS_EXIT_USAGE;
	}
	if (nr != 1) {
		log_error(
			"expected one of --socket-path=PATH, --fd=FDNUM and a socket from systemd,"
			" found %s",
			nr ? "more than one" : "none");
		return OPTIONS_EXIT_USAGE;
	}
	if (opt->client && !opt->socket_path) {
		log_error(
			"--client: expected --socket-path=PATH to connect to, found a socket that "
			"is there already; give the path, or leave --client out");
		return OPTIONS_EXIT_USAGE;
	}
	return 0;
}

int program_check(const struct program_options *opt)
{
	int ret;

	log_set_level((enum bf_log_level)opt->log_level);
	ret = check_socket_options(opt);
	if (ret)
		return ret;
	ret = opt->ready_fd >= 0 ? ready_check_fd(opt->ready_fd) : 0;
	if (ret) {
		log_error("--ready-fd=%d: expected a descriptor open for writing, found %s",
			  opt->ready_fd, strerror(-ret));
		return OPTIONS_EXIT_USAGE;
	}
	return 0;
}

static int write_stats(const struct program *program)
{
	int ret;

	if (!program->opt->stats)
		return 0;
	ret = stats_write(program->opt->stats, program->stats(program->opaque));
	if (ret)
		log_error("--stats=%s: cannot write it: %s", program->opt->stats, strerror(-ret));
	return ret;
}

/* Whatever brings connections. */
static int open_source(struct loop *loop, struct seat *seat, const char *path)
{
	const struct program_options *opt = loop->program->opt;
	char origin[32];
	int fd = opt->fd;

	if (opt->client)
		return connector_open(&seat->connector, path);
	if (path)
		return listener_open_path(&seat->listener, path, (unsigned)opt->socket_mode);
	if (fd < 0)
		fd = ready_inherited_socket();
	snprintf(origin, sizeof(origin), opt->fd < 0 ? "LISTEN_FDS, fd %d" : "--fd=%d", fd);
	return listener_open_fd(&seat->listener, fd, origin);
}

static int open_sources(struct loop *loop)
{
	const struct program *program = loop->program;
	int ret = open_source(loop, &loop->seats[0], program->opt->socket_path);

	for (unsigned i = 0; i < program->nr_more && !ret; i++)
		ret = open_source(loop, &loop->seats[1 + i], program->more[i].socket_path);
	return ret;
}

static void take_signals(struct loop *loop)
{
	struct signalfd_siginfo info;

	while (read(loop->signal_fd, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGUSR1)
			write_stats(loop->program); /* failure: said, and serving goes on */
		else
			loop->ending = true;
	}
}

static void front_end_gone(void *opaque)
{
	bf_backend_give_up_missing(opaque);
}

static int attach(struct seat *seat, int fd)
{
	int ret = seat->postcopy ? hangup_start(&seat->hangup, fd, front_end_gone, seat->be) : 0;

	if (ret) {
		log_error("connection refused: no thread to watch it: %s", strerror(-ret));
		close(fd);
		return ret;
	}
	ret = bf_backend_attach(seat->be, fd);
	if (!ret) {
		log_info("front end connected");
		return 0;
	}
	hangup_stop(&seat->hangup);
	log_error("connection refused: %s", bf_backend_error(seat->be));
	return ret;
}

static void detach(struct seat *seat)
{
	bf_backend_detach(seat->be);
	hangup_stop(&seat->hangup);
}

static void accept_connection(struct seat *seat)
{
	int fd = bf_socket_accept(seat->listener.listen_fd);

	if (fd >= 0) {
		attach(seat, fd); /* failure: said, and the next one may be better */
		return;
	}
	if (fd == -EAGAIN || fd == -ECONNABORTED || fd == -EINTR)
		return;
	log_error("cannot accept a connection: %s", strerror(-fd));
	/* Out of descriptors or memory: the client is still there and would be tried at once. */
	poll(NULL, 0, 100);
}

static void make_connection(struct seat *seat)
{
	int fd = connector_try(&seat->connector);

	if (fd >= 0 && attach(seat, fd))
		connector_ended(&seat->connector);
}

/* A front end that goes away in its own time is no failure of ours. */
static bool ordinary_end(int error)
{
	return !error || error == -ECONNRESET || error == -EPIPE || error == -ENOTCONN;
}

/* What comes after a connection: the next one, or the end. */
static void connection_ended(struct loop *loop, struct seat *seat, bool failed)
{
	if (connector_is_open(&seat->connector))
		connector_ended(&seat->connector);
	else if (seat->listener.listen_fd < 0)
		loop->ending = true;
	if (loop->program->opt->one_off)
		loop->ending = true;
	if (loop->ending)
		loop->status = failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

static void serve_connection(struct loop *loop, struct seat *seat)
{
	struct bf_backend *be = seat->be;
	int ret = bf_backend_dispatch(be);

	if (bf_backend_attached(be))
		return;
	hangup_stop(&seat->hangup);
	if (ordinary_end(ret))
		log_info("front end disconnected");
	else
		log_error("connection ended: %s", bf_backend_error(be));
	connection_ended(loop, seat, !ordinary_end(ret));
}

static void take_device_event(struct loop *loop)
{
	const struct program *program = loop->program;
	bool attached = bf_backend_attached(program->be);

	/* Devices with events have one seat. */
	if (!program->device_event(program->opaque))
		loop->ending = true;
	else if (attached && !bf_backend_attached(program->be))
		connection_ended(loop, &loop->seats[0], true);
}

/* What is polled besides signals and the device: the front end, or where the next comes from. */
static int connection_fd(const struct seat *seat)
{
	if (bf_backend_attached(seat->be))
		return bf_backend_fd(seat->be);
	if (connector_is_open(&seat->connector))
		return seat->connector.timer_fd;
	return seat->listener.listen_fd;
}

static void take_connection_event(struct loop *loop, struct seat *seat)
{
	if (bf_backend_attached(seat->be))
		serve_connection(loop, seat);
	else if (connector_is_open(&seat->connector))
		make_connection(seat);
	else
		accept_connection(seat);
}

/* A busy device does not keep the front end waiting, nor the other way round: one each in turn. */
static void serve(struct loop *loop)
{
	const struct program *program = loop->program;

	while (!loop->ending) {
		struct pollfd fds[2 + PROGRAM_MAX_SEATS] = {
			{ .fd = loop->signal_fd, .events = POLLIN },
			{ .fd = program->device_event ? program->device_fd : -1, .events = POLLIN },
		};

		for (unsigned i = 0; i < loop->nr_seats; i++)
			fds[2 + i] = (struct pollfd){ .fd = connection_fd(&loop->seats[i]),
						      .events = POLLIN };
		if (poll(fds, 2 + loop->nr_seats, -1) < 0)
			continue;
		if (fds[0].revents)
			take_signals(loop);
		if (!loop->ending && fds[1].revents)
			take_device_event(loop);
		for (unsigned i = 0; i < loop->nr_seats && !loop->ending; i++)
			if (fds[2 + i].revents)
				take_connection_event(loop, &loop->seats[i]);
	}
}

static int start(struct loop *loop)
{
	const struct program_options *opt = loop->program->opt;
	sigset_t set;
	int ret;

	our_signals(&set);
	loop->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (loop->signal_fd < 0) {
		log_error("signalfd: %s", strerror(errno));
		return -errno;
	}
	/* Now, not in an hour: a place that cannot be written is found out before serving. */
	ret = write_stats(loop->program);
	if (!ret)
		ret = open_sources(loop);
	if (ret)
		return ret;
	if (opt->socket_path && !opt->client)
		log_info("listening on %s", opt->socket_path);
	for (unsigned i = 0; i < loop->program->nr_more && !opt->client; i++)
		log_info("listening on %s", loop->program->more[i].socket_path);
	ready_announce(opt->ready_fd);
	return 0;
}

static void seat_all(struct loop *loop)
{
	const struct program *program = loop->program;

	loop->nr_seats = 1 + program->nr_more;
	for (unsigned i = 0; i < loop->nr_seats; i++)
		loop->seats[i] = (struct seat){ .be = i ? program->more[i - 1].be : program->be,
						.listener = LISTENER_NONE,
						.connector = CONNECTOR_NONE,
						.postcopy = program->postcopy,
						.hangup = HANGUP_NONE };
}

int program_run(const struct program *program)
{
	struct loop loop = { .program = program, .signal_fd = -1 };
	int fd;

	seat_all(&loop);
	if (start(&loop)) {
		loop.status = EXIT_FAILURE;
		goto out;
	}
	fd = loop.seats[0].listener.connected_fd;
	loop.seats[0].listener.connected_fd = -1;
	if (fd >= 0 && attach(&loop.seats[0], fd)) {
		loop.status = EXIT_FAILURE;
		goto out;
	}
	serve(&loop);
	/* Queues end here, all before the first device goes, and so that the counters are final. */
	for (unsigned i = 0; i < loop.nr_seats; i++)
		detach(&loop.seats[i]);
	if (write_stats(program))
		loop.status = EXIT_FAILURE;
out:
	for (unsigned i = 0; i < loop.nr_seats; i++) {
		connector_close(&loop.seats[i].connector);
		listener_close(&loop.seats[i].listener);
	}
	if (loop.signal_fd >= 0)
		close(loop.signal_fd);
	return loop.status;
}
