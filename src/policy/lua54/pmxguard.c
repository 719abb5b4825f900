/*
** The C half of the guard: the account of steps, and the functions of the base library that would let a script run where no hook
** can stop it. Entry points are called from src/sys/lua_guard.rs only.
*/
#define LUA_LIB

#include "lprefix.h"

#include "lua.h"

#include "lauxlib.h"

#include "pmxguard.h"

typedef void (*pmx_clock_function) (lua_State *L);

__thread lua_Integer pmx_steps = PMX_TICK_STEPS;

static __thread lua_State *top_coroutine = NULL;
static __thread int late = 0;
static pmx_clock_function look_at_clock = NULL;


void pmx_tick (lua_State *L) {
  pmx_steps = PMX_TICK_STEPS;
  if (look_at_clock != NULL)
    look_at_clock(L);
}


int pmx_is_top (lua_State *L) {
  return L == top_coroutine;
}


int pmx_is_late (void) {
  return late;
}


void pmx_guard_clock (pmx_clock_function f) {
  look_at_clock = f;
}


/* a callback begins ('top' is its coroutine, NULL for the top level of a policy) or ends */
void pmx_guard_enter (lua_State *top) {
  top_coroutine = top;
  late = 0;
}


void pmx_guard_late (void) {
  late = 1;
}


/* 'coroutine.yield' for our own API: suspends the callback */
int pmx_yield (lua_State *L) {
  return lua_yield(L, lua_gettop(L));
}


/*
** 'setmetatable' as in lbaselib.c, but without finalizers: a collector calls __gc with hooks off, so nothing could stop it.
** ('__gc' counts at this call only: Lua ignores one that is added to the metatable later.)
*/
static int setmetatable (lua_State *L) {
  int t = lua_type(L, 2);
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_argexpected(L, t == LUA_TNIL || t == LUA_TTABLE, 2, "nil or table");
  if (l_unlikely(luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL))
    return luaL_error(L, "cannot change a protected metatable");
  if (t == LUA_TTABLE) {
    lua_pushliteral(L, "__gc");
    if (lua_rawget(L, 2) != LUA_TNIL)
      return luaL_error(L, "a policy cannot have finalizers (__gc)");
    lua_pop(L, 1);
  }
  lua_settop(L, 2);
  lua_setmetatable(L, 1);
  return 1;
}


/*
** The message handler of 'xpcall' runs inside the hook that raised the error, with hooks off: the policy's own handler is not called
** for the error that ends a late callback.
*/
static int guarded_handler (lua_State *L) {
  if (late)
    return 1;  /* the message as it is */
  lua_settop(L, 1);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, 1, LUA_MULTRET);
  return lua_gettop(L);
}


static int finishpcall (lua_State *L, int status, lua_KContext extra) {
  if (l_unlikely(status != LUA_OK && status != LUA_YIELD)) {  /* error? */
    lua_pushboolean(L, 0);  /* first result (false) */
    lua_pushvalue(L, -2);  /* error message */
    return 2;  /* return false, msg */
  }
  else
    return lua_gettop(L) - (int)extra;  /* return all results */
}


/* as in lbaselib.c, with the guarded handler */
static int xpcall (lua_State *L) {
  int status;
  int n = lua_gettop(L);
  luaL_checktype(L, 2, LUA_TFUNCTION);  /* check error function */
  lua_pushvalue(L, 2);
  lua_pushcclosure(L, guarded_handler, 1);
  lua_replace(L, 2);
  lua_pushboolean(L, 1);  /* first result */
  lua_pushvalue(L, 1);  /* function */
  lua_rotate(L, 3, 2);  /* move them below function's arguments */
  status = lua_pcallk(L, n - 2, LUA_MULTRET, 2, 2, finishpcall);
  return finishpcall(L, status, 2);
}


static const luaL_Reg base_functions[] = {
  {"setmetatable", setmetatable},
  {"xpcall", xpcall},
  {NULL, NULL}
};


int pmx_open_string (lua_State *L);
int pmx_open_table (lua_State *L);
int pmx_open_utf8 (lua_State *L);
int pmx_open_coroutine (lua_State *L);


/* puts the guarded libraries into a state that was made without their originals */
int pmx_open_guarded (lua_State *L) {
  luaL_checkversion(L);
  lua_pushglobaltable(L);
  luaL_setfuncs(L, base_functions, 0);
  lua_pop(L, 1);
  pmx_open_string(L);
  lua_setglobal(L, "string");
  pmx_open_table(L);
  lua_setglobal(L, "table");
  pmx_open_utf8(L);
  lua_setglobal(L, "utf8");
  pmx_open_coroutine(L);
  lua_setglobal(L, "coroutine");
  return 0;
}
