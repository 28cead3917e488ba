/*
 * What libseccomp makes of a profile, for the tests that compare. Test-only: corten itself has no C library.
 *
 *   oracle numbers ARCH    its number for each name on stdin, one a line; - for a name that the
 *                          architecture lacks, ? for one that it does not know, or not apart
 *   oracle filters         reads profiles, writes for each one its length and its instructions; the length is 0 when
 *                          two rules have other actions for the same arguments, which the library refuses
 *   oracle time COUNT      reads one profile, builds it COUNT times, prints the median in microseconds
 *
 * A profile is lines of words, numbers in hexadecimal: `profile DEFAULT NATIVE ARCH…`, then
 * `rule ACTION NAME [INDEX OPERATOR A B]…`, and `end`. cc -o oracle oracle.c -lseccomp
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what, int error)
{
	fprintf(stderr, "oracle: %s: %s\n", what, strerror(error < 0 ? -error : error));
	exit(1);
}

static uint64_t word(void)
{
	char *text = strtok(NULL, " \n");
	if (!text)
		die("a word is missing", EINVAL);
	return strtoull(text, NULL, 16);
}

static void must(const char *what, int error)
{
	if (error)
		die(what, error);
}

/* Builds from lines up to `end`; NULL when the library refuses a rule beside another. The lines are cut up. */
static scmp_filter_ctx build(char **lines, size_t count)
{
	scmp_filter_ctx filter = NULL;
	for (size_t at = 0; at < count; at++) {
		char *kind = strtok(lines[at], " \n");
		if (!strcmp(kind, "profile")) {
			filter = seccomp_init(word());
			uint32_t native = word();
			if (native != seccomp_arch_native()) {
				must("remove the native architecture", seccomp_arch_remove(filter, SCMP_ARCH_NATIVE));
				must("add the machine's architecture", seccomp_arch_add(filter, native));
			}
			for (char *arch; (arch = strtok(NULL, " \n"));) {
				int error = seccomp_arch_add(filter, strtoul(arch, NULL, 16));
				if (error != -EEXIST)
					must("add an architecture", error);
			}
			/* As runc does it for more than 32 rules. */
			if (count > 34)
				must("optimize", seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2));
			continue;
		}
		uint32_t action = word();
		char *name = strtok(NULL, " \n");
		struct scmp_arg_cmp args[6];
		unsigned given = 0;
		for (char *index; (index = strtok(NULL, " \n")); given++) {
			args[given].arg = strtoul(index, NULL, 16);
			args[given].op = word();
			args[given].datum_a = word();
			args[given].datum_b = word();
		}
		int number = seccomp_syscall_resolve_name(name);
		if (number == __NR_SCMP_ERROR)
			die(name, ENOSYS);
		int error = seccomp_rule_add_array(filter, action, number, given, args);
		if (error == -EEXIST) {
			seccomp_release(filter);
			return NULL;
		}
		must(name, error);
	}
	return filter;
}

/* The lines of the next profile, without `end`. */
static size_t read_profile(char **lines, size_t most)
{
	char line[4096];
	size_t count = 0;
	while (count < most && fgets(line, sizeof line, stdin) && strcmp(line, "end\n"))
		lines[count++] = strdup(line);
	return count;
}

static void drop(char **lines, size_t count)
{
	while (count)
		free(lines[--count]);
}

static int by_size(const void *one, const void *other)
{
	double difference = *(const double *)one - *(const double *)other;
	return difference < 0 ? -1 : difference > 0;
}

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

int main(int count, char **words)
{
	static char *lines[100000];
	if (count == 3 && !strcmp(words[1], "numbers")) {
		char name[256];
		uint32_t arch = strtoul(words[2], NULL, 16);
		while (scanf("%255s", name) == 1) {
			int number = seccomp_syscall_resolve_name_arch(arch, name);
			/* Two names share a number below 0 in 2.5.4 (sys_debug_setcontext and switch_endian): a
			 * rule for the second becomes one for the first. */
			char *native = seccomp_syscall_resolve_num_arch(seccomp_arch_native(),
									seccomp_syscall_resolve_name(name));
			if (number == __NR_SCMP_ERROR || !native || strcmp(native, name))
				puts("?");
			else if (number < 0)
				puts("-");
			else
				printf("%d\n", number);
			free(native);
		}
	} else if (count == 2 && !strcmp(words[1], "filters")) {
		int out = memfd_create("filter", MFD_CLOEXEC);
		for (size_t read; (read = read_profile(lines, 100000)); drop(lines, read)) {
			scmp_filter_ctx filter = build(lines, read);
			if (!filter) {
				fwrite(&(uint32_t){0}, sizeof(uint32_t), 1, stdout);
				continue;
			}
			if (ftruncate(out, 0) || lseek(out, 0, SEEK_SET))
				die("memfd", errno);
			must("export", seccomp_export_bpf(filter, out));
			static char bytes[1 << 20];
			uint32_t length = pread(out, bytes, sizeof bytes, 0);
			fwrite(&length, sizeof length, 1, stdout);
			fwrite(bytes, 1, length, stdout);
			seccomp_release(filter);
		}
	} else if (count == 3 && !strcmp(words[1], "time")) {
		int rounds = atoi(words[2]);
		double *took = calloc(rounds, sizeof *took);
		size_t read = read_profile(lines, 100000);
		int out = memfd_create("filter", MFD_CLOEXEC);
		for (int round = 0; round < rounds; round++) {
			static char *copy[100000];
			for (size_t at = 0; at < read; at++)
				copy[at] = strdup(lines[at]);
			double start = now();
			scmp_filter_ctx filter = build(copy, read);
			must("export", seccomp_export_bpf(filter, out));
			took[round] = now() - start;
			seccomp_release(filter);
			drop(copy, read);
		}
		qsort(took, rounds, sizeof *took, by_size);
		printf("%.1f\n", took[rounds / 2]);
	} else {
		fprintf(stderr, "usage: oracle numbers ARCH | filters | time COUNT\n");
		return 1;
	}
	return 0;
}
