#define _GNU_SOURCE /* RUSAGE_THREAD */
#include "meeting.h"

#include <immintrin.h>
#include <limits.h>
#include <linux/futex.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOOKS 50000         /* about 1 ms: longer than threads of one step are ever apart, alone */
#define LOOKS_IN_CROWD 1000 /* about 20 µs */
#define CROWDED_MEETINGS 256 /* about a step, from the last sign on */

static _Atomic int32_t crowded; /* meetings for which that is believed */

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

void meeting_attend(Meeting *meeting, int64_t threads) {
    const int32_t round = meeting->round;
    if (atomic_fetch_add(&meeting->arrived, 1) + 1 == threads) {
        meeting->arrived = 0;
        meeting->round = round + 1;
        const int32_t left = atomic_load_explicit(&crowded, memory_order_relaxed);
        if (left) atomic_store_explicit(&crowded, left - 1, memory_order_relaxed);
        /* RACE: who is about to sleep has said so before it looked once more, or will see this. */
        if (!meeting->asleep) return;
        futex(&meeting->round, FUTEX_WAKE, INT_MAX);
        if (was_put_off()) atomic_store_explicit(&crowded, CROWDED_MEETINGS, memory_order_relaxed);
        return;
    }
    const int32_t looks =
        atomic_load_explicit(&crowded, memory_order_relaxed) ? LOOKS_IN_CROWD : LOOKS;
    for (int32_t look = 0; look < looks; look++) {
        if (atomic_load_explicit(&meeting->round, memory_order_acquire) != round) return;
        _mm_pause();
    }
    meeting->asleep++;
    while (meeting->round == round) futex(&meeting->round, FUTEX_WAIT, round);
    meeting->asleep--;
}
