/* Tells where a process dies: the test that runs, and the native stack of the thread at fault, also of one that Python
 * knows nothing of. What handled the signal before is next: Python's faulthandler, which adds the stack of Python.
 */

#include <execinfo.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { FRAMES = 32 };

static const int FATAL[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
static struct sigaction before[NSIG];
static int written_to;

static void tell(int signum, siginfo_t *info, void *context) {
    void *frames[FRAMES];
    char head[512];
    const char *test = getenv("PYTEST_CURRENT_TEST");
    (void)context;
    /* First: a stack that is broken may end its own telling, and then what comes next is asked, not this once more. */
    for (size_t at = 0; at < sizeof FATAL / sizeof *FATAL; at++)
        sigaction(FATAL[at], &before[FATAL[at]], NULL);
    int length = snprintf(head, sizeof head, "\nFatal signal %d at address %p in thread %p of process %ld, test %.300s\n",
                          signum, info->si_addr, (void *)pthread_self(), (long)getpid(), test ? test : "none");
    if (write(written_to, head, (size_t)length) == length)
        backtrace_symbols_fd(frames, backtrace(frames, FRAMES), written_to);
    if (info->si_code <= 0) /* it was sent, as abort() does: the instruction would not fault again */
        raise(signum);
}

void tell_of_faults(int descriptor) {
    void *frame;
    struct sigaction action = {.sa_sigaction = tell, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
    written_to = descriptor;
    backtrace(&frame, 1); /* its first call allocates, which a handler must not */
    for (size_t at = 0; at < sizeof FATAL / sizeof *FATAL; at++)
        sigaction(FATAL[at], &action, &before[FATAL[at]]);
}
