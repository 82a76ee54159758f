/* Where the threads of a team wait for each other, some 250 times a step.
 *
 * PERF: looking again and again is the fastest way to wait, as long as all threads run. Where others
 * want the processors too, one of them may not run, and who only looks keeps from it the very
 * processor on which it could: a step then takes many times as long. So nobody looks for longer than
 * threads are ever apart that all run, and everybody for a moment only while threads are put off
 * their processors. Sleeping always would be no better: where a busy host shares out processors, one
 * that sleeps comes back late.
 */
#ifndef MILLRACE_MEETING_H
#define MILLRACE_MEETING_H

#include <stdatomic.h>
#include <stdint.h>

/* Of one team in one parallel region; all zero before that begins. */
typedef struct {
    _Alignas(64) _Atomic int32_t arrived;
    _Alignas(64) _Atomic int32_t round; /* counts meetings that are over */
    _Atomic int32_t asleep;             /* threads that sleep, or are about to */
} Meeting;

/* Return when so many threads have come; what they wrote before is seen. */
void meeting_attend(Meeting *meeting, int64_t threads);

#endif
