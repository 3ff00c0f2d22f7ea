/* SPDX-License-Identifier: Apache-2.0 */
/* The whole user space of the test guest: PID 1 that fills memory, rewrites it, checks it, ticks and answers. */

/*
 * Theory of operation
 *
 * Memory. The area is `fill` MiB of pages. What a page holds is a pure function of (index, generation):
 *
 *	word 0		index
 *	word 1		generation = major << 32 | minor
 *	word 2..511	a random stream seeded by (index, major): nothing compresses it
 *
 * A full write takes the next major and writes all 4096 bytes; a touch takes the next minor and writes 8 bytes, so that
 * pages can be dirtied as fast as the (emulated) machine allows. The generations stand in a table of their own. So
 * whoever walks the area knows what each page must hold: a page that a move lost, doubled, tore or brought in an old
 * version does not match. A lock per group of 64 pages keeps the checkers and the writer apart, so the check runs
 * under load too.
 *
 * Threads. console (main): one line in, one line out on ttyS0. writer: paced every millisecond. checker: with
 * godwit.check=1 walks the area for ever when nothing else wants the CPU. ticker: with godwit.tick=1 sends one record
 * per millisecond to I/O port 0xe9, real-time priority. service: TCP lines, with godwit.ip. button: ACPI power key.
 * With godwit.disk=1 also the writer of disk.c.
 *
 * A tick record is 4 bytes, seven bits of a 28-bit sequence in each, highest first, the top bit set in the first byte
 * only. A reader can start anywhere; a lost tick is a step of two, a guest that runs twice shows the same number twice.
 * The guest's clock stands still while it is moved, so only the reader outside can time the pause.
 *
 * TCG. QEMU 7.2's own migration loses writes of TCG guests now and then: with RAM that is a multiple of 256 KiB, its
 * cpu_physical_memory_sync_dirty_bitmap() clears dirty bits a word at a time and does not tell the software TLB, so a
 * page stays "already dirty" there until the guest flushes the TLB, and what is written to it in that time is not sent.
 * Linux flushes seldom while one process runs: hot kernel pages arrive old and the guest hangs, seen in one move of six
 * on a busy host. KVM has no such TLB. So under TCG two flushers per CPU, processes of their own, wake every
 * millisecond: each switch to another address space loads CR3, which flushes.
 */

#include "tests/guest/guest.h"

#include <arpa/inet.h>
#include <cpuid.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/input.h>
#include <net/if.h>
#include <net/route.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/ioctl.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define PAGE_BYTES 4096U
#define PAGE_WORDS (PAGE_BYTES / 8)
#define GROUP_PAGES 64U
#define MINOR_BITS 32
#define TICK_PORT 0xe9
#define TICK_NS 1000000L
#define CLIENTS_MAX 64
#define LINE_BYTES 256

/* What the kernel command line asks for; rate, hot and touch also change by the `load` command. */
static struct {
	long fill_mib;
	long port;
	bool check;
	bool tick;
	bool disk;
	char ip[64];
	char gateway[64];
} option = {.port = 7};

/* The load the writer follows. Owned by the console, read by the writer. */
static _Atomic long load_rate;   /* MB/s (10^6 bytes of pages), 0 idle, -1 as fast as possible */
static _Atomic long load_hot;    /* MiB from the start of the area, 0 the whole area */
static _Atomic bool load_touch;  /* 8 bytes of each page instead of all */
static _Atomic long load_serial; /* grows with each change, so that the writer starts pacing anew */

static uint64_t *area;
static uint64_t *generation;
static uint64_t page_count;
static pthread_mutex_t *group_lock;

static _Atomic uint64_t writes;
static _Atomic uint64_t checked;
static _Atomic uint64_t bad;
static _Atomic uint64_t ticks;
static _Atomic uint64_t served;

static int console_fd = -1;
static pthread_mutex_t console_lock = PTHREAD_MUTEX_INITIALIZER;

/* One page that does not hold what it must. */
struct mismatch {
	uint64_t page;
	uint64_t word;
	uint64_t expected;
	uint64_t found;
};

void say(const char *fmt, ...)
{
	char line[512];
	va_list ap;

	va_start(ap, fmt);
	int n = vsnprintf(line, sizeof(line) - 1, fmt, ap);
	va_end(ap);
	if (n > (int)sizeof(line) - 2)
		n = sizeof(line) - 2;
	line[n++] = '\n';
	pthread_mutex_lock(&console_lock);
	for (int done = 0; done < n;) {
		ssize_t w = write(console_fd, line + done, (size_t)(n - done));
		if (w < 0 && errno != EINTR && errno != EAGAIN)
			break;
		done += w > 0 ? (int)w : 0;
	}
	pthread_mutex_unlock(&console_lock);
}

int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

void sleep_until(int64_t ns)
{
	struct timespec ts = {.tv_sec = ns / NS_PER_S, .tv_nsec = ns % NS_PER_S};

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
		;
}

/* The first state of a page's stream: mixes both numbers well (splitmix64's finisher). Pure. */
static uint64_t stream_seed(uint64_t index, uint64_t major)
{
	uint64_t x = (index + 1) * 0x9e3779b97f4a7c15ULL + major * 0xd1b54a32d192ed03ULL;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

/* The next word of a page's stream: one multiplication, because every page written costs 510 of these. Pure. */
static inline uint64_t stream_next(uint64_t *state)
{
	*state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
	return *state ^ (*state >> 32);
}

/* Write all of page @index for generation @gen. Caller holds the group's lock. */
static void page_write(uint64_t index, uint64_t gen)
{
	uint64_t *p = area + index * PAGE_WORDS;
	uint64_t state = stream_seed(index, gen >> MINOR_BITS);

	p[0] = index;
	p[1] = gen;
	for (unsigned i = 2; i < PAGE_WORDS; i++)
		p[i] = stream_next(&state);
}

/* Compare page @index with what it must hold; fills @m when it does not. Caller holds the group's lock. */
static bool page_matches(uint64_t index, struct mismatch *m)
{
	const uint64_t *p = area + index * PAGE_WORDS;
	uint64_t gen = generation[index];
	uint64_t state = stream_seed(index, gen >> MINOR_BITS);

	for (unsigned i = 0; i < PAGE_WORDS; i++) {
		uint64_t want = i == 0 ? index : i == 1 ? gen : stream_next(&state);
		if (p[i] != want) {
			*m = (struct mismatch){.page = index, .word = i, .expected = want, .found = p[i]};
			return false;
		}
	}
	return true;
}

/* Give page @index its next generation: all bytes, or 8 of them. Caller holds the group's lock. */
static void page_advance(uint64_t index, bool touch)
{
	uint64_t gen = touch ? generation[index] + 1 : ((generation[index] >> MINOR_BITS) + 1) << MINOR_BITS;

	if (touch)
		area[index * PAGE_WORDS + 1] = gen;
	else
		page_write(index, gen);
	generation[index] = gen;
}

/* Check pages [first, first + GROUP_PAGES) under their lock; adds generations to @sum, bad pages to @n_bad (the first
 * of them in @m). */
static void group_check(uint64_t first, uint64_t *sum, uint64_t *n_bad, struct mismatch *m)
{
	uint64_t end = first + GROUP_PAGES < page_count ? first + GROUP_PAGES : page_count;
	struct mismatch found;

	pthread_mutex_lock(&group_lock[first / GROUP_PAGES]);
	for (uint64_t i = first; i < end; i++) {
		*sum += generation[i];
		if (!page_matches(i, &found) && (*n_bad)++ == 0)
			*m = found;
	}
	pthread_mutex_unlock(&group_lock[first / GROUP_PAGES]);
}

/* Print the first mismatch in the form that scripts look for. */
static void say_bad(const struct mismatch *m, uint64_t n_bad)
{
	say("verify BAD page=%llu expected=%016llx found=%016llx word=%llu bad_pages=%llu", (unsigned long long)m->page,
	    (unsigned long long)m->expected, (unsigned long long)m->found, (unsigned long long)m->word,
	    (unsigned long long)n_bad);
}

/* The console's `verify`: walk the whole area now and answer in one line. */
static void verify(void)
{
	uint64_t sum = 0;
	uint64_t n_bad = 0;
	struct mismatch m = {0};

	for (uint64_t i = 0; i < page_count; i += GROUP_PAGES)
		group_check(i, &sum, &n_bad, &m);
	if (n_bad)
		say_bad(&m, n_bad);
	else
		say("verify ok pages=%llu generation_sum=%llu", (unsigned long long)page_count,
		    (unsigned long long)sum);
}

/* Thread: walk the area for ever when no other thread wants the CPU; a bad page is said at once, and counted. */
static void *checker(void *arg)
{
	struct sched_param param = {0};

	(void)arg;
	pthread_setschedparam(pthread_self(), SCHED_IDLE, &param);
	for (uint64_t i = 0;; i = i + GROUP_PAGES < page_count ? i + GROUP_PAGES : 0) {
		uint64_t sum = 0;
		uint64_t n_bad = 0;
		struct mismatch m = {0};

		group_check(i, &sum, &n_bad, &m);
		if (n_bad && atomic_fetch_add(&bad, n_bad) == 0)
			say_bad(&m, n_bad);
		atomic_fetch_add(&checked, GROUP_PAGES);
		if (i % 4096 == 0)
			usleep(1000);
	}
	return NULL;
}

/* Advance @n pages from @cursor on, in a hot set of @hot pages. A touch walks in order under one lock per group; a full
 * write jumps through the set in a fixed permutation, because a guest's writes are not in the order of the copy. */
static uint64_t write_pages(uint64_t cursor, uint64_t n, uint64_t hot, bool touch)
{
	const uint64_t stride =
		40499; /* a prime: each page of a round is visited once unless the set is a multiple of it */

	for (uint64_t done = 0; done < n;) {
		uint64_t page = touch ? cursor % hot : cursor % hot * stride % hot;
		uint64_t left_in_group = GROUP_PAGES - page % GROUP_PAGES;
		uint64_t run = touch ? (n - done < left_in_group ? n - done : left_in_group) : 1;

		if (run > hot - page)
			run = hot - page;
		pthread_mutex_lock(&group_lock[page / GROUP_PAGES]);
		for (uint64_t i = 0; i < run; i++)
			page_advance(page + i, touch);
		pthread_mutex_unlock(&group_lock[page / GROUP_PAGES]);
		cursor += run;
		done += run;
	}
	atomic_fetch_add(&writes, n);
	return cursor;
}

/* Thread: follow the load. Paced by what is due since the load began; a stall of over 100 ms (a vCPU that got no host
 * CPU) is forgotten, not caught up, so that the rate is never exceeded. */
static void *writer(void *arg)
{
	uint64_t cursor = 0;
	uint64_t done = 0;
	int64_t start = now_ns();
	int64_t last = start;
	long serial = -1;

	(void)arg;
	for (;;) {
		long rate = atomic_load(&load_rate);
		uint64_t hot = (uint64_t)atomic_load(&load_hot) << 8;
		int64_t now = now_ns();

		if (hot == 0 || hot > page_count)
			hot = page_count;
		if (serial != atomic_load(&load_serial) || now - last > NS_PER_S / 10) {
			serial = atomic_load(&load_serial);
			start = now;
			done = 0;
		}
		last = now;
		if (rate < 0) {
			cursor = write_pages(cursor, GROUP_PAGES, hot, atomic_load(&load_touch));
			continue;
		}
		uint64_t due = (uint64_t)((double)(now - start) * (double)rate / 1e3 / PAGE_BYTES);
		if (due > done) {
			cursor = write_pages(cursor, due - done, hot, atomic_load(&load_touch));
			done = due;
		}
		sleep_until(now + (rate ? TICK_NS : 20 * TICK_NS));
	}
	return NULL;
}

/* Whether this CPU is emulated by TCG: the hypervisor leaf of CPUID names itself. */
static bool cpu_is_tcg(void)
{
	unsigned eax;
	unsigned name[3];

	__cpuid(0x40000000, eax, name[0], name[1], name[2]);
	return memcmp(name, "TCGTCGTCGTCG", sizeof(name)) == 0;
}

/* Start two flushers on each CPU (see TCG above). Before any thread and before the area is mapped, so that the
 * processes are small and hold no lock. */
static void flushers_start(void)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	for (long i = 0; i < 2 * cpus; i++) {
		struct sched_param param = {.sched_priority = 40};
		cpu_set_t set;

		if (fork() != 0)
			continue;
		CPU_ZERO(&set);
		CPU_SET((size_t)(i / 2), &set);
		sched_setaffinity(0, sizeof(set), &set);
		sched_setscheduler(0, SCHED_FIFO, &param);
		for (int64_t next = now_ns();; sleep_until(next)) {
			int64_t now = now_ns();
			next = next + TICK_NS > now ? next + TICK_NS : now + TICK_NS;
		}
	}
}

/* Thread: one 4-byte record per millisecond to the debug console. ioperm is a thread's own. */
static void *ticker(void *arg)
{
	struct sched_param param = {.sched_priority = 50};

	(void)arg;
	if (ioperm(TICK_PORT, 1, 1) < 0) {
		say("guest: no access to port 0xe9: %s", strerror(errno));
		return NULL;
	}
	pthread_setschedparam(pthread_self(), SCHED_FIFO, &param);
	for (int64_t next = now_ns();; next += TICK_NS) {
		uint64_t seq = atomic_fetch_add(&ticks, 1);
		int64_t now = now_ns();

		outb((unsigned char)(0x80 | (seq >> 21 & 0x7f)), TICK_PORT);
		outb((unsigned char)(seq >> 14 & 0x7f), TICK_PORT);
		outb((unsigned char)(seq >> 7 & 0x7f), TICK_PORT);
		outb((unsigned char)(seq & 0x7f), TICK_PORT);
		if (now > next + TICK_NS)
			next = now;
		sleep_until(next + TICK_NS);
	}
	return NULL;
}

/* Thread: a press of the ACPI power key on /dev/input/event<N> powers the guest off. Quiet where there is none. */
static void *button(void *arg)
{
	int fd = open(arg, O_RDONLY | O_CLOEXEC);
	struct input_event ev;

	free(arg);
	while (fd >= 0 && read(fd, &ev, sizeof(ev)) == sizeof(ev)) {
		if (ev.type == EV_KEY && ev.code == KEY_POWER && ev.value == 1) {
			say("guest powerdown");
			sync();
			reboot(RB_POWER_OFF);
		}
	}
	return NULL;
}

/* Set the address, mask and (if given) default route of eth0, and bring it up. "10.77.0.50/24". */
static int network_up(void)
{
	struct ifreq ifr = {.ifr_name = "eth0"};
	struct sockaddr_in *sin = (struct sockaddr_in *)&ifr.ifr_addr;
	char *slash = strchr(option.ip, '/');
	long bits = slash ? strtol(slash + 1, NULL, 10) : 24;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (slash)
		*slash = '\0';
	sin->sin_family = AF_INET;
	if (fd < 0 || bits < 1 || bits > 32 || inet_pton(AF_INET, option.ip, &sin->sin_addr) != 1)
		return -1;
	if (ioctl(fd, SIOCSIFADDR, &ifr) < 0)
		return -1;
	sin->sin_addr.s_addr = htonl((uint32_t)(0xffffffffULL << (32 - bits)));
	if (ioctl(fd, SIOCSIFNETMASK, &ifr) < 0 || ioctl(fd, SIOCGIFFLAGS, &ifr) < 0)
		return -1;
	ifr.ifr_flags |= IFF_UP | IFF_RUNNING;
	if (ioctl(fd, SIOCSIFFLAGS, &ifr) < 0)
		return -1;
	if (option.gateway[0]) {
		struct rtentry rt = {.rt_flags = RTF_UP | RTF_GATEWAY};
		((struct sockaddr_in *)&rt.rt_dst)->sin_family = AF_INET;
		((struct sockaddr_in *)&rt.rt_genmask)->sin_family = AF_INET;
		((struct sockaddr_in *)&rt.rt_gateway)->sin_family = AF_INET;
		inet_pton(AF_INET, option.gateway, &((struct sockaddr_in *)&rt.rt_gateway)->sin_addr);
		ioctl(fd, SIOCADDRT, &rt);
	}
	close(fd);
	return 0;
}

/* Answer every line in what came from client @fd. False: the client is gone. */
static bool client_serve(int fd)
{
	char in[LINE_BYTES];
	char out[64];
	ssize_t n = recv(fd, in, sizeof(in), 0);

	if (n <= 0)
		return n < 0 && (errno == EINTR || errno == EAGAIN);
	for (ssize_t i = 0; i < n; i++) {
		if (in[i] != '\n')
			continue;
		int len = snprintf(out, sizeof(out), "%llu %lld\n", (unsigned long long)atomic_fetch_add(&served, 1),
				   (long long)(now_ns() / 1000000));
		if (send(fd, out, (size_t)len, MSG_NOSIGNAL) != len)
			return false;
	}
	return true;
}

/* Thread: the TCP service. Each line is answered by "SEQUENCE UPTIME_MS"; the sequence is the guest's, not the
 * connection's, so an answer given twice or by two guests is seen. */
static void *service(void *arg)
{
	struct pollfd fds[1 + CLIENTS_MAX];
	nfds_t n = 1;

	fds[0] = (struct pollfd){.fd = (int)(intptr_t)arg, .events = POLLIN};
	for (;;) {
		if (poll(fds, n, -1) < 0)
			continue;
		for (nfds_t i = n; i-- > 1;) {
			if (fds[i].revents && !client_serve(fds[i].fd)) {
				close(fds[i].fd);
				fds[i] = fds[--n];
			}
		}
		int fd = fds[0].revents ? accept4(fds[0].fd, NULL, NULL, SOCK_CLOEXEC) : -1;
		if (fd >= 0 && n <= CLIENTS_MAX)
			fds[n++] = (struct pollfd){.fd = fd, .events = POLLIN};
		else if (fd >= 0)
			close(fd);
	}
	return NULL;
}

void thread_start(void *(*run)(void *), void *arg)
{
	pthread_t t;

	if (pthread_create(&t, NULL, run, arg) != 0)
		say("guest: no thread: out of memory?");
	else
		pthread_detach(t);
}

/* Bring the network up and listen. */
static void service_start(void)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons((uint16_t)option.port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int one = 1;

	if (network_up() < 0) {
		say("guest: no network: %s", strerror(errno));
		return;
	}
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&sin, sizeof(sin)) < 0 || listen(fd, 16) < 0) {
		say("guest: cannot listen on port %ld: %s", option.port, strerror(errno));
		return;
	}
	thread_start(service, (void *)(intptr_t)fd);
}

/* Insert the modules that /modules/order names, in order. A missing or refused one costs its feature only. */
static void modules_load(void)
{
	FILE *f = fopen("/modules/order", "re");
	char line[LINE_BYTES];

	while (f && fgets(line, sizeof(line), f)) {
		char path[LINE_BYTES + 16];

		line[strcspn(line, "\n")] = '\0';
		snprintf(path, sizeof(path), "/modules/%s", line);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd >= 0) {
			syscall(SYS_finit_module, fd, "", 0);
			close(fd);
		}
	}
	if (f)
		fclose(f);
}

/* One thread per input device: any of them may be the power key. */
static void buttons_start(void)
{
	DIR *d = opendir("/dev/input");
	struct dirent *de;
	char *path;

	while (d && (de = readdir(d))) {
		if (strncmp(de->d_name, "event", 5) == 0 && asprintf(&path, "/dev/input/%s", de->d_name) > 0)
			thread_start(button, path);
	}
	if (d)
		closedir(d);
}

/* Take one `godwit.name=value` word of the kernel command line; other words are the kernel's. */
static void option_take(const char *word)
{
	const char *value = strchr(word, '=');
	size_t name_len = value ? (size_t)(value - word) : 0;

	if (!value || strncmp(word, "godwit.", 7) != 0)
		return;
	value++;
#define IS(name) (name_len == strlen("godwit." name) && strncmp(word, "godwit." name, name_len) == 0)
	if (IS("fill"))
		option.fill_mib = strtol(value, NULL, 10);
	else if (IS("hot"))
		atomic_store(&load_hot, strtol(value, NULL, 10));
	else if (IS("rate"))
		atomic_store(&load_rate, strtol(value, NULL, 10));
	else if (IS("touch"))
		atomic_store(&load_touch, *value == '1');
	else if (IS("check"))
		option.check = *value == '1';
	else if (IS("tick"))
		option.tick = *value == '1';
	else if (IS("disk"))
		option.disk = *value == '1';
	else if (IS("port"))
		option.port = strtol(value, NULL, 10);
	else if (IS("ip"))
		snprintf(option.ip, sizeof(option.ip), "%s", value);
	else if (IS("gateway"))
		snprintf(option.gateway, sizeof(option.gateway), "%s", value);
	else
		say("guest: unknown parameter %s", word);
#undef IS
}

/* Read the kernel command line. */
static void options_read(void)
{
	char line[4096] = "";
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	char *save = NULL;

	if (fd < 0 || read(fd, line, sizeof(line) - 1) < 0)
		say("guest: cannot read /proc/cmdline: %s", strerror(errno));
	if (fd >= 0)
		close(fd);
	for (char *w = strtok_r(line, " \n", &save); w; w = strtok_r(NULL, " \n", &save))
		option_take(w);
}

/* Map the area, fill it at generation 1.0, and make the locks. Says why and gives up the area when memory is short. */
static void area_fill(void)
{
	size_t bytes = (size_t)option.fill_mib << 20;

	if (option.fill_mib <= 0)
		return;
	area = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	page_count = bytes / PAGE_BYTES;
	generation = calloc(page_count, sizeof(*generation));
	group_lock = calloc(page_count / GROUP_PAGES + 1, sizeof(*group_lock));
	if (area == MAP_FAILED || !generation || !group_lock) {
		say("guest: cannot map %ld MiB: give the guest more memory or godwit.fill less", option.fill_mib);
		page_count = 0;
		return;
	}
	for (uint64_t i = 0; i <= page_count / GROUP_PAGES; i++)
		pthread_mutex_init(&group_lock[i], NULL);
	for (uint64_t i = 0; i < page_count; i++)
		page_advance(i, false);
}

/* Open ttyS0 without echo or translation: what a script writes comes back only as answers. */
static void console_open(void)
{
	struct termios t;

	console_fd = open("/dev/ttyS0", O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (console_fd < 0)
		console_fd = open("/dev/console", O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (console_fd < 0 || tcgetattr(console_fd, &t) < 0)
		return;
	cfmakeraw(&t);
	t.c_iflag |= ICRNL;
	tcsetattr(console_fd, TCSANOW, &t);
}

/* `load RATE HOT [touch]`: change what the writer does. */
static void load_command(const char *args)
{
	long rate;
	long hot;
	char mode[16] = "";

	if (sscanf(args, "%ld %ld %15s", &rate, &hot, mode) < 2 || rate < -1 || hot < 0 ||
	    (mode[0] && strcmp(mode, "touch") != 0)) {
		say("error load wants RATE (MB/s, 0 idle, -1 unlimited) HOT (MiB, 0 all) [touch]");
		return;
	}
	atomic_store(&load_rate, page_count ? rate : 0);
	atomic_store(&load_hot, hot);
	atomic_store(&load_touch, mode[0] != '\0');
	atomic_fetch_add(&load_serial, 1);
	say("load ok rate=%ld hot=%ld touch=%d", rate, hot, mode[0] != '\0');
}

/* `stats`: everything that is counted, in one line. */
static void stats_command(void)
{
	say("stats uptime_ms=%lld pages=%llu writes=%llu checked=%llu bad=%llu ticks=%llu served=%llu rate=%ld hot=%ld "
	    "touch=%d",
	    (long long)(now_ns() / 1000000), (unsigned long long)page_count, (unsigned long long)atomic_load(&writes),
	    (unsigned long long)atomic_load(&checked), (unsigned long long)atomic_load(&bad),
	    (unsigned long long)atomic_load(&ticks), (unsigned long long)atomic_load(&served), atomic_load(&load_rate),
	    atomic_load(&load_hot), atomic_load(&load_touch));
}

/* `corrupt PAGE`: flip one bit, so that a test can see that verify finds it. The same again flips it back. */
static void corrupt_command(const char *args)
{
	uint64_t page = strtoull(args, NULL, 10);

	if (page >= page_count) {
		say("error corrupt wants a page below %llu", (unsigned long long)page_count);
		return;
	}
	area[page * PAGE_WORDS + PAGE_WORDS / 2] ^= 1;
	say("corrupt ok page=%llu", (unsigned long long)page);
}

/* Run one line of the console. */
static void command(const char *line)
{
	if (strcmp(line, "ping") == 0)
		say("pong");
	else if (strcmp(line, "verify") == 0)
		verify();
	else if (strcmp(line, "stats") == 0)
		stats_command();
	else if (strncmp(line, "load ", 5) == 0)
		load_command(line + 5);
	else if (strcmp(line, "disk") == 0)
		disk_command();
	else if (strcmp(line, "idle") == 0)
		load_command("0 0");
	else if (strncmp(line, "corrupt ", 8) == 0)
		corrupt_command(line + 8);
	else if (strcmp(line, "poweroff") == 0) {
		say("poweroff ok");
		tcdrain(console_fd);
		reboot(RB_POWER_OFF);
	} else if (line[0])
		say("error unknown command; ping, verify, stats, disk, load RATE HOT [touch], idle, corrupt PAGE, "
		    "poweroff");
}

/* Read lines from the console for ever. A line longer than the buffer is dropped with an answer. */
static void console_serve(void)
{
	char line[LINE_BYTES];
	size_t len = 0;

	for (;;) {
		char c;
		ssize_t n = read(console_fd, &c, 1);

		if (n <= 0) {
			usleep(10000);
		} else if (c != '\n') {
			line[len < sizeof(line) - 1 ? len++ : len] = c;
		} else {
			line[len] = '\0';
			len = 0;
			command(line);
		}
	}
}

int main(void)
{
	mkdir("/dev", 0755);
	mkdir("/proc", 0755);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	mount("proc", "/proc", "proc", 0, NULL);
	klogctl(8, NULL, 1); /* SYSLOG_ACTION_CONSOLE_LEVEL: answers must not be cut by messages; a panic still shows */
	signal(SIGPIPE, SIG_IGN);
	console_open();
	say("guest init uptime_ms=%lld", (long long)(now_ns() / 1000000));
	options_read();
	if (cpu_is_tcg())
		flushers_start();
	modules_load();
	if (option.disk)
		disk_start();
	area_fill();
	if (page_count)
		thread_start(writer, NULL);
	if (page_count && option.check)
		thread_start(checker, NULL);
	if (option.tick)
		thread_start(ticker, NULL);
	if (option.ip[0])
		service_start();
	buttons_start();
	say("guest ready");
	console_serve();
}
