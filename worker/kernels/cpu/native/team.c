#define _GNU_SOURCE /* RUSAGE_THREAD */
#include "team.h"

#include <immintrin.h>
#include <limits.h>
#include <linux/futex.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOOKS 50000         /* about 1 ms: longer than threads of one step are ever apart, alone */
#define LOOKS_IN_CROWD 1000 /* about 20 µs */
#define CROWDED_PHASES 256  /* about a step, from the last sign on */

static _Atomic int32_t crowded; /* phases for which that is believed */

static void futex(_Atomic int32_t *word, int operation, int32_t value) {
    syscall(SYS_futex, word, operation | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

/* Whether this thread was put off its processor since it was asked last: by other threads of this
 * system, not by a host that gives its processors to somebody else. */
static int was_put_off(void) {
    static _Thread_local int64_t seen;
    struct rusage usage;
    getrusage(RUSAGE_THREAD, &usage);
    const int was = usage.ru_nivcsw > seen;
    seen = usage.ru_nivcsw;
    return was;
}

Team *new_team(void) {
    static _Thread_local Team *team;
    static _Thread_local int64_t room;
    const int64_t threads = omp_get_max_threads();
    const size_t bytes = sizeof(Team) + (size_t)threads * sizeof(Part);
    if (threads > room) {
        free(team);
        team = aligned_alloc(64, bytes);
        if (!team) abort(); /* a few kB: nothing goes on without them */
        room = threads;
    }
    memset(team, 0, bytes);
    return team;
}

void team_await(Team *team, int32_t phase) {
    const int32_t looks =
        atomic_load_explicit(&crowded, memory_order_relaxed) ? LOOKS_IN_CROWD : LOOKS;
    for (int32_t look = 0; look < looks; look++) {
        if (atomic_load_explicit(&team->over, memory_order_acquire) >= phase) return;
        _mm_pause();
    }
    /* RACE: who is about to sleep says so before it looks once more, so the last one knows. */
    team->asleep++;
    for (int32_t over; (over = team->over) < phase;) futex(&team->over, FUTEX_WAIT, over);
    team->asleep--;
}

void team_end(Team *team, int32_t phase) {
    team->over = phase;
    const int32_t left = atomic_load_explicit(&crowded, memory_order_relaxed);
    if (left) atomic_store_explicit(&crowded, left - 1, memory_order_relaxed);
    if (!team->asleep) return;
    futex(&team->over, FUTEX_WAKE, INT_MAX);
    if (was_put_off()) atomic_store_explicit(&crowded, CROWDED_PHASES, memory_order_relaxed);
}
