/*
** What the guarded copies of Lua's libraries share with src/sys/lua_guard.rs.
**
** A count hook sees Lua instructions only: a C function that loops (a pattern that backtracks, table.move over 2^50 elements) would
** never be stopped. So every loop of these libraries whose length a script chooses is charged to a thread's account of steps; when the
** account is empty, 'pmx_tick' looks at the clock, and raises an error once the callback is late.
*/
#ifndef pmxguard_h
#define pmxguard_h

#include "lua.h"

/* steps between two looks at the clock: some 100 to 500 microseconds */
#define PMX_TICK_STEPS 100000

/* steps that one pattern may take: enough for any sane pattern over any subject, and a fraction of a second */
#define PMX_PATTERN_STEPS(subject) (5000000 + 64 * (lua_Integer)(subject))

extern __thread lua_Integer pmx_steps;

/* refills the account, looks at the clock; does not return when the callback is late */
void pmx_tick (lua_State *L);

/* the callback's coroutine, which must not be yielded by the policy itself; NULL outside callbacks */
int pmx_is_top (lua_State *L);

/* has the callback passed its deadline? then nothing of the policy's runs any more */
int pmx_is_late (void);

#define pmx_charge(L,n) \
  ((pmx_steps -= (lua_Integer)(n)) < 0 ? pmx_tick(L) : (void)0)

#endif
