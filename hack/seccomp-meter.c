/*
 * Measures a seccomp filter, a file of struct sock_filter, for hack/bench --seccomp.
 *
 *   seccomp-meter load FILTER           microseconds that the kernel takes to load it, a median
 *   seccomp-meter steps FILTER NUMBER   instructions run for a call of x86-64 whose arguments are 0
 *   seccomp-meter calls FILTER          seconds of ten million getppid under it, the best of five; - for no filter but
 *                                       those that the meter itself was started under
 */
#define _GNU_SOURCE
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct sock_filter code[4096];
static struct sock_fprog filter = {0, code};

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

static int by_size(const void *one, const void *other)
{
	double difference = *(const double *)one - *(const double *)other;
	return difference < 0 ? -1 : difference > 0;
}

static double load(void)
{
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	double start = now();
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &filter))
		return -1;
	return now() - start;
}

static double ten_million(void)
{
	if (filter.len && load() < 0)
		return -1;
	double start = now();
	for (int count = 0; count < 10 * 1000 * 1000; count++)
		syscall(SYS_getppid);
	return (now() - start) / 1e6;
}

/* A filter stays for ever, so each measurement has a process of its own. */
static double in_child(double (*measure)(void), volatile double *shared)
{
	pid_t child = fork();
	if (!child) {
		*shared = measure();
		/* The profile need not allow more than this. */
		_exit(0);
	}
	waitpid(child, NULL, 0);
	return *shared;
}

static int steps(unsigned number)
{
	unsigned data[16] = {number, AUDIT_ARCH_X86_64}, held = 0;
	for (int at = 0, count = 1;; count++) {
		struct sock_filter now = code[at++];
		switch (now.code) {
		case BPF_LD | BPF_W | BPF_ABS: held = data[now.k / 4]; break;
		case BPF_ALU | BPF_AND | BPF_K: held &= now.k; break;
		case BPF_JMP | BPF_JA: at += now.k; break;
		case BPF_JMP | BPF_JEQ | BPF_K: at += held == now.k ? now.jt : now.jf; break;
		case BPF_JMP | BPF_JGT | BPF_K: at += held > now.k ? now.jt : now.jf; break;
		case BPF_JMP | BPF_JGE | BPF_K: at += held >= now.k ? now.jt : now.jf; break;
		case BPF_JMP | BPF_JSET | BPF_K: at += held & now.k ? now.jt : now.jf; break;
		case BPF_RET | BPF_K: return count;
		default: return -1;
		}
	}
}

int main(int count, char **words)
{
	double took[101];
	int none = count > 2 && !strcmp(words[1], "calls") && !strcmp(words[2], "-");
	FILE *file = count > 2 && !none ? fopen(words[2], "r") : NULL;
	if (!file && !none) {
		fprintf(stderr, "usage: seccomp-meter load|calls FILTER, or steps FILTER NUMBER\n");
		return 1;
	}
	if (file)
		filter.len = fread(code, sizeof *code, 4096, file);
	volatile double *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int calls = !strcmp(words[1], "calls"), rounds = calls ? 5 : 101;
	if (!strcmp(words[1], "steps")) {
		printf("%d\n", count > 3 ? steps(atoi(words[3])) : -1);
		return 0;
	}
	for (int round = 0; round < rounds; round++)
		took[round] = in_child(calls ? ten_million : load, shared);
	qsort(took, rounds, sizeof *took, by_size);
	printf(calls ? "%.2f\n" : "%.1f\n", took[calls ? 0 : rounds / 2]);
	return 0;
}
