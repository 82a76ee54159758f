/* How the threads of a team share the work of one parallel region: phase after phase, some 250 a
 * step.
 *
 * A phase has a part for each thread, or items that are taken one after the other, and is over when
 * all of that is done, whoever has done it. Each begins with its own part, which it finds in its
 * own caches; what nobody has begun by then is for those who have nothing left. So a thread that
 * others have put off its processor holds up nobody by more than what it was at, and finds
 * everything done that went by meanwhile.
 *
 * PERF: looking again and again is the fastest way to wait, as long as all threads run. Where
 * others want the processors too, who only looks may keep from another thread the very processor on
 * which it could run. So nobody looks for longer than threads are ever apart that all run, and
 * everybody for a moment only while threads are put off their processors. Sleeping always would be
 * no better: where a busy host shares out processors, one that sleeps comes back late.
 */
#ifndef MILLRACE_TEAM_H
#define MILLRACE_TEAM_H

#include <omp.h>
#include <stdatomic.h>
#include <stdint.h>

#define PATIENCE 4 /* looks for each thread, before a part of another is taken: it may be coming */

/* A thread's part, of one phase after the other, and how far that thread has come. */
typedef struct {
    _Alignas(64) _Atomic int32_t taken; /* the last phase in which somebody has */
    int32_t phase, due;                 /* its own: its phase, and what is done when that is over */
} Part;

/* What the threads of a region know of each other; all zero before that begins. */
typedef struct {
    _Alignas(64) _Atomic int32_t done;   /* parts and items of all phases so far */
    _Alignas(64) _Atomic int32_t over;   /* the last phase that is */
    _Atomic int32_t asleep;              /* threads that sleep, or are about to */
    _Alignas(64) _Atomic uint64_t items; /* a phase in the upper half, how many are taken below */
    Part parts[];
} Team;

/* Which thread of a team this is: number `own` of so many. */
typedef struct {
    int64_t threads, own;
    Team *team;
} Share;

/* Work of a phase: units `first` to `beyond` are at hand. */
typedef struct {
    Share share;
    int64_t all, first, beyond;
    int32_t phase, due, begun;
} Work;

/* For the next region of the calling thread. */
Team *new_team(void);

/* Return when this phase is over; what was written in it is seen. */
void team_await(Team *team, int32_t phase);

/* To be called by whoever has done the last of a phase. */
void team_end(Team *team, int32_t phase);

/* Of a thread in a parallel region. */
static inline Share team_share(Team *team) {
    return (Share){omp_get_num_threads(), omp_get_thread_num(), team};
}

/* Where a thread's part begins; that of the next is where it ends. */
static inline int64_t share_of(int64_t all, int64_t own, Share share) {
    return all * own / share.threads;
}

static inline Work next_phase(int64_t all, int64_t parts, Share share) {
    if (share.threads == 1) return (Work){.share = share, .all = all};
    Part *own = &share.team->parts[share.own];
    own->due += (int32_t)parts;
    return (Work){.share = share, .all = all, .phase = ++own->phase, .due = own->due};
}

static inline int is_over(const Work *work) {
    return atomic_load_explicit(&work->share.team->over, memory_order_acquire) >= work->phase;
}

static inline void tell_done(const Work *work, int32_t count) {
    Team *team = work->share.team;
    if (atomic_fetch_add(&team->done, count) + count == work->due) team_end(team, work->phase);
}

/* --- a part for each thread ----------------------------------------------------------------------
 */

/* A phase whose units are cut into parts. */
static inline Work parts_of(int64_t all, Share share) {
    return next_phase(all, share.threads, share);
}

static inline int take_part(Work *work, int64_t number) {
    _Atomic int32_t *taken = &work->share.team->parts[number].taken;
    int32_t last = atomic_load_explicit(taken, memory_order_relaxed);
    if (last >= work->phase || !atomic_compare_exchange_strong(taken, &last, work->phase)) return 0;
    work->first = share_of(work->all, number, work->share);
    work->beyond = share_of(work->all, number + 1, work->share);
    return 1;
}

static inline int take_any(Work *work) {
    const int64_t threads = work->share.threads, own = work->share.own;
    for (int64_t look = 0; look < PATIENCE * threads; look++) {
        if (is_over(work)) return 0;
        __builtin_ia32_pause();
    }
    for (int64_t t = own + 1; t < own + threads; t++)
        if (take_part(work, t % threads)) return 1;
    return 0;
}

/* Whether there is another part for this thread; if not, all of the phase is done. */
static inline int next_part(Work *work) {
    const Share *share = &work->share;
    if (share->threads == 1) {
        work->beyond = work->all;
        return !work->begun++;
    }
    if (work->begun) tell_done(work, 1);
    if ((!work->begun && take_part(work, share->own)) || take_any(work)) {
        work->begun = 1;
        return 1;
    }
    team_await(share->team, work->phase);
    return 0;
}

/* Wait for all threads, each of which has done its own. */
static inline void meet(Share share) {
    if (share.threads == 1) return;
    const Work work = parts_of(share.threads, share);
    tell_done(&work, 1);
    team_await(share.team, work.phase);
}

/* --- items ---------------------------------------------------------------------------------------
 */

/* A phase whose units are taken one by one, in order: they take longer or shorter. */
static inline Work items_of(int64_t all, Share share) {
    return all ? next_phase(all, all, share) : (Work){.share = share};
}

static inline int take_item(Work *work) {
    _Atomic uint64_t *items = &work->share.team->items;
    uint64_t seen = atomic_load_explicit(items, memory_order_relaxed), next;
    do {
        const int32_t phase = (int32_t)(seen >> 32);
        next = phase < work->phase ? 0 : (uint32_t)seen;
        if (phase > work->phase || (int64_t)next >= work->all) return 0;
    } while (!atomic_compare_exchange_weak(items, &seen, (uint64_t)work->phase << 32 | (next + 1)));
    work->first = (int64_t)next;
    return 1;
}

/* Whether there is another item for this thread, number `first`; if not, all are done. */
static inline int next_item(Work *work) {
    if (!work->all) return 0;
    if (work->share.threads == 1) {
        work->first = work->begun++;
        return work->first < work->all;
    }
    if (take_item(work)) {
        work->begun++;
        return 1;
    }
    if (work->begun) tell_done(work, work->begun);
    team_await(work->share.team, work->phase);
    return 0;
}

#endif
