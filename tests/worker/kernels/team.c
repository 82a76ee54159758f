/* A team in which a thread does not run until the others have done everything, or in which all run:
 * how often each unit of each phase was done, as bytes. */
#include "team.h"

#include <stdio.h>
#include <stdlib.h>

#define PHASES 300
#define UNITS 7

static uint8_t done[PHASES][2][UNITS];
static _Atomic int finished;

static void work(Share share) {
    for (int phase = 0; phase < PHASES; phase++) {
        for (Work work = parts_of(UNITS, share); next_part(&work);)
            for (int64_t u = work.first; u < work.beyond; u++) done[phase][0][u]++;
        for (Work work = items_of(phase % (UNITS + 1), share); next_item(&work);)
            done[phase][1][work.first] += 1 + (done[phase][0][work.first] != 1);
    }
}

int main(int count, char **arguments) {
    const int threads = atoi(arguments[1]), away = count > 2 ? atoi(arguments[2]) : -1;
    omp_set_dynamic(0);
    omp_set_num_threads(threads);
    Team *team = new_team();
#pragma omp parallel
    {
        const Share share = team_share(team);
        while (share.own == away && finished < threads - 1) __builtin_ia32_pause();
        work(share);
        finished++;
    }
    fwrite(done, 1, sizeof done, stdout);
    return finished != threads;
}
