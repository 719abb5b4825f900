/* The scoreboard of pmx-milter for programs in C: constants, records and enums of FORMAT.md, as words of the file.
   Made from the schema by the test `c_header`: do not edit, run `UPDATE_FORMAT=1 cargo test -p scoreboard`.

   Copy a record out of the file (see read_board.c for how) and look at the copy; never look at the file through these structs, for it
   changes while you look. A later minor version has longer records: copy the words you know. */
#ifndef PMX_SCOREBOARD_H
#define PMX_SCOREBOARD_H

#include <stddef.h>
#include <stdint.h>

#define PMX_MAGIC "\x89\x50\x4d\x58\x53\x42\x0d\x0a" /* the first 8 bytes */
#define PMX_MAJOR 1 /* readers refuse another one */
#define PMX_MINOR 1 /* of this header */
#define PMX_READY 1 /* value of ready */
#define PMX_GLOBAL_VERSION 512 /* offset of the global record's version word */
#define PMX_GLOBAL_COPY_0 640 /* offset of its copies */
#define PMX_GLOBAL_COPY_1 1920
#define PMX_LINE 128 /* from a record's version word to its first copy; from a ring's count to its first entry */
#define PMX_CHILD_COPY_1 2112 /* from a child's page to its second copy */
#define PMX_CHILD_ROOM 1920 /* most bytes of a copy there */
#define PMX_DEATHS_OFFSET 4096 /* the ring of deaths */
#define PMX_DEATHS 31 /* its entries */
#define PMX_MAX_SLOTS 65536 /* believe in no more */
#define PMX_ENDIAN UINT64_C(0x0102030405060708) /* value of endian */
#define PMX_UNKNOWN UINT64_MAX /* in a gauge: nobody can tell */

struct pmx_header {
  uint64_t magic; /* plain | the bytes 89 50 4D 58 53 42 0D 0A */
  uint64_t abi; /* plain | major << 32 + minor */
  uint64_t endian; /* plain | 0x0102030405060708 as the writer sees it */
  uint64_t header_len; /* plain | bytes: length of this header */
  uint64_t file_size; /* plain | bytes: size of the file; must equal what fstat says */
  uint64_t page_size; /* plain | bytes: size of a page on the writer's machine */
  uint64_t m_off; /* plain | bytes: offset of the first master record */
  uint64_t m_stride; /* plain | bytes: from one master record to the next */
  uint64_t m_copy_len; /* plain | bytes: length of one copy of a master record */
  uint64_t c_off; /* plain | bytes: offset of the first child page */
  uint64_t c_stride; /* plain | bytes: from one child page to the next */
  uint64_t c_copy_len; /* plain | bytes: length of one copy of a child record */
  uint64_t nslots; /* plain | slots that the file has room for */
  uint64_t schema_off; /* plain | bytes: offset of this schema */
  uint64_t schema_len; /* plain | bytes: length of this schema */
  uint64_t instance[2]; /* plain | random; never subtract counters of different instances */
  uint64_t boot[2]; /* plain | boot id, high word first; 0 when unknown */
  uint64_t master_pid; /* plain | pid of the master */
  uint64_t master_start; /* plain | ticks: start time of the master since boot, field 22 of proc stat; 0 when unknown */
  uint64_t pid_namespace; /* plain | inode of the master's pid namespace; 0 when unknown */
  uint64_t created_wall_ns; /* plain | ns: CLOCK_REALTIME of the creation */
  uint64_t created_boot_ns; /* plain | ns: CLOCK_BOOTTIME of the same instant */
  uint64_t previous_instance[2]; /* plain | instance that this one follows; 0 when none */
  uint64_t ready; /* plain | 1, stored after everything else */
  uint64_t seconds_off; /* plain | bytes: offset of the ring of seconds; 0 when there is none (1.0) */
  uint64_t seconds_stride; /* plain | bytes: from one second to the next */
  uint64_t seconds_count; /* plain | seconds that are kept */
  uint64_t events_off; /* plain | bytes: offset of the ring of events; 0 when there is none (1.0) */
  uint64_t events_stride; /* plain | bytes: from one event to the next */
  uint64_t events_count; /* plain | events that are kept */
  uint64_t m_hist_off; /* plain | bytes: from a master record to the two copies of its histograms; 0 when there are none (1.0) */
  uint64_t c_hist_off; /* plain | bytes: from a child page to its histograms; 0 when there are none (1.0) */
  uint64_t hist_phases; /* plain | phases with a histogram */
  uint64_t hist_buckets; /* plain | buckets of each */
  uint64_t reserved[27];
};
_Static_assert(sizeof(struct pmx_header) == 512, "pmx_header");
_Static_assert(offsetof(struct pmx_header, magic) == 0, "magic");
_Static_assert(offsetof(struct pmx_header, abi) == 8, "abi");
_Static_assert(offsetof(struct pmx_header, endian) == 16, "endian");
_Static_assert(offsetof(struct pmx_header, header_len) == 24, "header_len");
_Static_assert(offsetof(struct pmx_header, file_size) == 32, "file_size");
_Static_assert(offsetof(struct pmx_header, page_size) == 40, "page_size");
_Static_assert(offsetof(struct pmx_header, m_off) == 48, "m_off");
_Static_assert(offsetof(struct pmx_header, m_stride) == 56, "m_stride");
_Static_assert(offsetof(struct pmx_header, m_copy_len) == 64, "m_copy_len");
_Static_assert(offsetof(struct pmx_header, c_off) == 72, "c_off");
_Static_assert(offsetof(struct pmx_header, c_stride) == 80, "c_stride");
_Static_assert(offsetof(struct pmx_header, c_copy_len) == 88, "c_copy_len");
_Static_assert(offsetof(struct pmx_header, nslots) == 96, "nslots");
_Static_assert(offsetof(struct pmx_header, schema_off) == 104, "schema_off");
_Static_assert(offsetof(struct pmx_header, schema_len) == 112, "schema_len");
_Static_assert(offsetof(struct pmx_header, instance) == 120, "instance");
_Static_assert(offsetof(struct pmx_header, boot) == 136, "boot");
_Static_assert(offsetof(struct pmx_header, master_pid) == 152, "master_pid");
_Static_assert(offsetof(struct pmx_header, master_start) == 160, "master_start");
_Static_assert(offsetof(struct pmx_header, pid_namespace) == 168, "pid_namespace");
_Static_assert(offsetof(struct pmx_header, created_wall_ns) == 176, "created_wall_ns");
_Static_assert(offsetof(struct pmx_header, created_boot_ns) == 184, "created_boot_ns");
_Static_assert(offsetof(struct pmx_header, previous_instance) == 192, "previous_instance");
_Static_assert(offsetof(struct pmx_header, ready) == 208, "ready");
_Static_assert(offsetof(struct pmx_header, seconds_off) == 216, "seconds_off");
_Static_assert(offsetof(struct pmx_header, seconds_stride) == 224, "seconds_stride");
_Static_assert(offsetof(struct pmx_header, seconds_count) == 232, "seconds_count");
_Static_assert(offsetof(struct pmx_header, events_off) == 240, "events_off");
_Static_assert(offsetof(struct pmx_header, events_stride) == 248, "events_stride");
_Static_assert(offsetof(struct pmx_header, events_count) == 256, "events_count");
_Static_assert(offsetof(struct pmx_header, m_hist_off) == 264, "m_hist_off");
_Static_assert(offsetof(struct pmx_header, c_hist_off) == 272, "c_hist_off");
_Static_assert(offsetof(struct pmx_header, hist_phases) == 280, "hist_phases");
_Static_assert(offsetof(struct pmx_header, hist_buckets) == 288, "hist_buckets");

struct pmx_global {
  uint64_t state; /* enum | what the master says that the milter does */
  uint64_t generation; /* gauge | generation of configuration and policy, from 1 */
  uint64_t heartbeat_ns; /* plain | ns: CLOCK_BOOTTIME of the master's last turn, at least one a second */
  uint64_t accepting; /* enum | whether connections are accepted */
  uint64_t not_accepting; /* enum | why they are not */
  uint64_t accepted; /* counter | connections: accepted by the master */
  uint64_t rejected; /* counter | connections: of these, closed by the master without reaching a child */
  uint64_t waiting; /* gauge | connections: of these, in the master's hands now */
  uint64_t forks; /* counter | processes: children forked */
  uint64_t deaths_clean; /* counter | processes: children that ended as they should */
  uint64_t deaths_error; /* counter | processes: children that ended with another exit status */
  uint64_t deaths_signal; /* counter | processes: children that a signal ended */
  uint64_t capacity_ns; /* counter | ns: time without room in any child, up to the last change */
  uint64_t capacity_episodes; /* counter | how often that began */
  uint64_t capacity_since_ns; /* plain | ns: CLOCK_BOOTTIME since when no child has room; 0 when one has */
  uint64_t slots_in_use; /* gauge | slots: slots with a process now */
  uint64_t slots_high_water; /* gauge | slots: slots ever used; read these only */
  uint64_t slots_max; /* gauge | slots: most processes that can exist */
  uint64_t flags; /* flags | bit 0: no pool, one process serves all */
  uint64_t interpreters_max; /* gauge | interpreters: most in one process */
  uint64_t connections_max; /* gauge | connections: most at once in one process; 0 without a bound */
  uint64_t last_slot; /* plain | slot that last took a connection, or 2^64 - 1 */
  uint64_t reload_at_ns; /* plain | ns: CLOCK_BOOTTIME of the last restart asked for; 0 when none */
  uint64_t reload_result; /* enum | what became of it */
  uint64_t late_wakeups; /* counter | wake-ups that only the timer noticed; stays 0 */
  uint64_t children_max; /* gauge | processes: max_pooled_procs */
  uint64_t children_min; /* gauge | processes: min_pooled_procs */
  uint64_t stop_since_ns; /* plain | ns: CLOCK_BOOTTIME when a stop was asked for; 0 when none */
  uint64_t stop_deadline_ns; /* plain | ns: CLOCK_BOOTTIME when that stop cuts what is left */
  uint64_t command_timeout_ns; /* plain | ns: how long the MTA waits for an answer to a command */
  uint64_t content_timeout_ns; /* plain | ns: how long it waits during the content */
  uint64_t overload_passed; /* counter | connections: passed on for an overload answer */
  uint64_t peak_requests; /* gauge | connections: most in progress at once */
  uint64_t children_old; /* gauge | processes: children of an older generation that still serve */
  uint64_t backoff_until_ns; /* plain | ns: CLOCK_BOOTTIME until which no child is forked; 0 when forking is free */
  uint64_t crash_loop; /* gauge | processes: children that died young in a row */
  uint64_t port[33]; /* text | the port as the operator wrote it; length, then bytes */
  uint64_t version[5]; /* text | version of the program; length, then bytes */
  uint64_t trouble[33]; /* text | the last thing that went wrong; length, then bytes */
  uint64_t trouble_at_ns; /* plain | ns: CLOCK_BOOTTIME of that */
  uint64_t busy_ns[12]; /* counter | ns: time with so many slots busy, at most the label and more than the one before */
  uint64_t backlog; /* gauge | connections: in the kernel's queue of the port, sampled; 2^64 - 1 when it does not tell */
  uint64_t redacted; /* enum | whether addresses are hidden */
  uint64_t concurrency_limit; /* gauge | connections: most of the milter at once; 0 without a bound */
  uint64_t reserved[37];
};
_Static_assert(sizeof(struct pmx_global) == 1280, "pmx_global");
_Static_assert(offsetof(struct pmx_global, state) == 0, "state");
_Static_assert(offsetof(struct pmx_global, generation) == 8, "generation");
_Static_assert(offsetof(struct pmx_global, heartbeat_ns) == 16, "heartbeat_ns");
_Static_assert(offsetof(struct pmx_global, accepting) == 24, "accepting");
_Static_assert(offsetof(struct pmx_global, not_accepting) == 32, "not_accepting");
_Static_assert(offsetof(struct pmx_global, accepted) == 40, "accepted");
_Static_assert(offsetof(struct pmx_global, rejected) == 48, "rejected");
_Static_assert(offsetof(struct pmx_global, waiting) == 56, "waiting");
_Static_assert(offsetof(struct pmx_global, forks) == 64, "forks");
_Static_assert(offsetof(struct pmx_global, deaths_clean) == 72, "deaths_clean");
_Static_assert(offsetof(struct pmx_global, deaths_error) == 80, "deaths_error");
_Static_assert(offsetof(struct pmx_global, deaths_signal) == 88, "deaths_signal");
_Static_assert(offsetof(struct pmx_global, capacity_ns) == 96, "capacity_ns");
_Static_assert(offsetof(struct pmx_global, capacity_episodes) == 104, "capacity_episodes");
_Static_assert(offsetof(struct pmx_global, capacity_since_ns) == 112, "capacity_since_ns");
_Static_assert(offsetof(struct pmx_global, slots_in_use) == 120, "slots_in_use");
_Static_assert(offsetof(struct pmx_global, slots_high_water) == 128, "slots_high_water");
_Static_assert(offsetof(struct pmx_global, slots_max) == 136, "slots_max");
_Static_assert(offsetof(struct pmx_global, flags) == 144, "flags");
_Static_assert(offsetof(struct pmx_global, interpreters_max) == 152, "interpreters_max");
_Static_assert(offsetof(struct pmx_global, connections_max) == 160, "connections_max");
_Static_assert(offsetof(struct pmx_global, last_slot) == 168, "last_slot");
_Static_assert(offsetof(struct pmx_global, reload_at_ns) == 176, "reload_at_ns");
_Static_assert(offsetof(struct pmx_global, reload_result) == 184, "reload_result");
_Static_assert(offsetof(struct pmx_global, late_wakeups) == 192, "late_wakeups");
_Static_assert(offsetof(struct pmx_global, children_max) == 200, "children_max");
_Static_assert(offsetof(struct pmx_global, children_min) == 208, "children_min");
_Static_assert(offsetof(struct pmx_global, stop_since_ns) == 216, "stop_since_ns");
_Static_assert(offsetof(struct pmx_global, stop_deadline_ns) == 224, "stop_deadline_ns");
_Static_assert(offsetof(struct pmx_global, command_timeout_ns) == 232, "command_timeout_ns");
_Static_assert(offsetof(struct pmx_global, content_timeout_ns) == 240, "content_timeout_ns");
_Static_assert(offsetof(struct pmx_global, overload_passed) == 248, "overload_passed");
_Static_assert(offsetof(struct pmx_global, peak_requests) == 256, "peak_requests");
_Static_assert(offsetof(struct pmx_global, children_old) == 264, "children_old");
_Static_assert(offsetof(struct pmx_global, backoff_until_ns) == 272, "backoff_until_ns");
_Static_assert(offsetof(struct pmx_global, crash_loop) == 280, "crash_loop");
_Static_assert(offsetof(struct pmx_global, port) == 288, "port");
_Static_assert(offsetof(struct pmx_global, version) == 552, "version");
_Static_assert(offsetof(struct pmx_global, trouble) == 592, "trouble");
_Static_assert(offsetof(struct pmx_global, trouble_at_ns) == 856, "trouble_at_ns");
_Static_assert(offsetof(struct pmx_global, busy_ns) == 864, "busy_ns");
_Static_assert(offsetof(struct pmx_global, backlog) == 960, "backlog");
_Static_assert(offsetof(struct pmx_global, redacted) == 968, "redacted");
_Static_assert(offsetof(struct pmx_global, concurrency_limit) == 976, "concurrency_limit");
enum {
  PMX_GLOBAL_STATE_STARTING = 1,
  PMX_GLOBAL_STATE_RUNNING = 2,
  PMX_GLOBAL_STATE_RETIRING = 3,
  PMX_GLOBAL_STATE_STOPPED = 4
};
enum {
  PMX_GLOBAL_ACCEPTING_NO = 0,
  PMX_GLOBAL_ACCEPTING_YES = 1
};
enum {
  PMX_GLOBAL_NOT_ACCEPTING_ACCEPTING = 0,
  PMX_GLOBAL_NOT_ACCEPTING_FULL = 1,
  PMX_GLOBAL_NOT_ACCEPTING_LIMIT = 2,
  PMX_GLOBAL_NOT_ACCEPTING_STOPPING = 3,
  PMX_GLOBAL_NOT_ACCEPTING_RESOURCES = 4,
  PMX_GLOBAL_NOT_ACCEPTING_NO_CHILD = 5
};
enum {
  PMX_GLOBAL_RELOAD_RESULT_NONE = 0,
  PMX_GLOBAL_RELOAD_RESULT_DONE = 1,
  PMX_GLOBAL_RELOAD_RESULT_REFUSED = 2
};
enum {
  PMX_GLOBAL_REDACTED_NO = 0,
  PMX_GLOBAL_REDACTED_YES = 1
};

struct pmx_death {
  uint64_t number; /* plain | number of the entry, from 1; 0 while it is written */
  uint64_t at_ns; /* plain | ns: CLOCK_BOOTTIME when it was noticed */
  uint64_t slot; /* plain | slot */
  uint64_t pid; /* plain | pid */
  uint64_t end; /* plain | exit status + 1, or signal + 512 */
  uint64_t phase; /* enum | where the work in hand was */
  uint64_t phase_since_ns; /* plain | ns: CLOCK_BOOTTIME since when */
  uint64_t forked_at_ns; /* plain | ns: CLOCK_BOOTTIME of its fork */
  uint64_t lost_connections; /* gauge | connections: that it took with it */
  uint64_t queue_id[7]; /* text | queue id of the work in hand; length, then bytes */
};
_Static_assert(sizeof(struct pmx_death) == 128, "pmx_death");
_Static_assert(offsetof(struct pmx_death, number) == 0, "number");
_Static_assert(offsetof(struct pmx_death, at_ns) == 8, "at_ns");
_Static_assert(offsetof(struct pmx_death, slot) == 16, "slot");
_Static_assert(offsetof(struct pmx_death, pid) == 24, "pid");
_Static_assert(offsetof(struct pmx_death, end) == 32, "end");
_Static_assert(offsetof(struct pmx_death, phase) == 40, "phase");
_Static_assert(offsetof(struct pmx_death, phase_since_ns) == 48, "phase_since_ns");
_Static_assert(offsetof(struct pmx_death, forked_at_ns) == 56, "forked_at_ns");
_Static_assert(offsetof(struct pmx_death, lost_connections) == 64, "lost_connections");
_Static_assert(offsetof(struct pmx_death, queue_id) == 72, "queue_id");
enum {
  PMX_DEATH_PHASE_IDLE = 0,
  PMX_DEATH_PHASE_CONNECT = 1,
  PMX_DEATH_PHASE_MAIL = 2,
  PMX_DEATH_PHASE_RCPT = 3,
  PMX_DEATH_PHASE_DATA = 4,
  PMX_DEATH_PHASE_HEADER = 5,
  PMX_DEATH_PHASE_BODY = 6,
  PMX_DEATH_PHASE_EOM = 7
};

struct pmx_master {
  uint64_t state; /* enum | what is in the slot */
  uint64_t incarnation; /* plain | number of the process in the slot; the child's record counts only if it names the same */
  uint64_t pid; /* plain | its pid; 0 when the slot is empty */
  uint64_t start_time; /* plain | ticks: its start time since boot, field 22 of proc stat */
  uint64_t forked_at_ns; /* plain | ns: CLOCK_BOOTTIME of its fork */
  uint64_t processes; /* counter | processes: processes that the slot has had */
  uint64_t dispatched; /* counter | connections: handed to this process */
  uint64_t returned; /* counter | connections: of these, taken back, never picked up */
  uint64_t dispatched_before; /* counter | connections: handed to earlier processes */
  uint64_t returned_before; /* counter | connections: of these, taken back */
  uint64_t lost_connections; /* counter | connections: cut by the deaths of earlier processes */
  uint64_t lost_messages; /* counter | messages: cut by the deaths of earlier processes */
  uint64_t retire_reason; /* enum | why the process retires */
  uint64_t retiring_since_ns; /* plain | ns: CLOCK_BOOTTIME since when it retires; 0 when it does not */
  uint64_t last_end; /* plain | how the last process ended: exit status + 1, or signal + 512; 0 when none has */
  uint64_t crashes; /* counter | processes: processes that did not end as they should */
  uint64_t vsz_bytes; /* gauge | bytes: virtual size of the process, sampled */
  uint64_t rss_bytes; /* gauge | bytes: resident size of the process, sampled */
  uint64_t generation; /* gauge | generation of configuration and policy that it runs */
  uint64_t peak_requests; /* gauge | connections: most that the process carried at once */
  uint64_t base_connections_completed; /* counter | connections: finished, overload answers included */
  uint64_t base_messages_started; /* counter | messages: begun */
  uint64_t base_messages_aborted; /* counter | messages: ended without a final reply */
  uint64_t base_verdicts[6]; /* counter | messages: processed, by verdict */
  uint64_t base_sessions[4]; /* counter | sessions: verdicts other than continue at connect and helo */
  uint64_t base_recipients_refused; /* counter | recipients: refused */
  uint64_t base_overload_answered; /* counter | connections: answered without the policy, as the milter was full */
  uint64_t base_phase_ns[8]; /* counter | ns: time in callbacks, by phase */
  uint64_t base_message_ns; /* counter | ns: from first packet to final reply, summed over processed messages */
  uint64_t base_message_histogram[32]; /* counter | messages: processed, by duration: upper bounds in seconds */
  uint64_t histogram_copy; /* plain | its lowest bit: which copy of the earlier processes' histograms counts */
  uint64_t late_answers; /* counter | answers: of earlier processes, after the MTA had given up */
  uint64_t reserved[18];
};
_Static_assert(sizeof(struct pmx_master) == 768, "pmx_master");
_Static_assert(offsetof(struct pmx_master, state) == 0, "state");
_Static_assert(offsetof(struct pmx_master, incarnation) == 8, "incarnation");
_Static_assert(offsetof(struct pmx_master, pid) == 16, "pid");
_Static_assert(offsetof(struct pmx_master, start_time) == 24, "start_time");
_Static_assert(offsetof(struct pmx_master, forked_at_ns) == 32, "forked_at_ns");
_Static_assert(offsetof(struct pmx_master, processes) == 40, "processes");
_Static_assert(offsetof(struct pmx_master, dispatched) == 48, "dispatched");
_Static_assert(offsetof(struct pmx_master, returned) == 56, "returned");
_Static_assert(offsetof(struct pmx_master, dispatched_before) == 64, "dispatched_before");
_Static_assert(offsetof(struct pmx_master, returned_before) == 72, "returned_before");
_Static_assert(offsetof(struct pmx_master, lost_connections) == 80, "lost_connections");
_Static_assert(offsetof(struct pmx_master, lost_messages) == 88, "lost_messages");
_Static_assert(offsetof(struct pmx_master, retire_reason) == 96, "retire_reason");
_Static_assert(offsetof(struct pmx_master, retiring_since_ns) == 104, "retiring_since_ns");
_Static_assert(offsetof(struct pmx_master, last_end) == 112, "last_end");
_Static_assert(offsetof(struct pmx_master, crashes) == 120, "crashes");
_Static_assert(offsetof(struct pmx_master, vsz_bytes) == 128, "vsz_bytes");
_Static_assert(offsetof(struct pmx_master, rss_bytes) == 136, "rss_bytes");
_Static_assert(offsetof(struct pmx_master, generation) == 144, "generation");
_Static_assert(offsetof(struct pmx_master, peak_requests) == 152, "peak_requests");
_Static_assert(offsetof(struct pmx_master, base_connections_completed) == 160, "base.connections_completed");
_Static_assert(offsetof(struct pmx_master, base_messages_started) == 168, "base.messages_started");
_Static_assert(offsetof(struct pmx_master, base_messages_aborted) == 176, "base.messages_aborted");
_Static_assert(offsetof(struct pmx_master, base_verdicts) == 184, "base.verdicts");
_Static_assert(offsetof(struct pmx_master, base_sessions) == 232, "base.sessions");
_Static_assert(offsetof(struct pmx_master, base_recipients_refused) == 264, "base.recipients_refused");
_Static_assert(offsetof(struct pmx_master, base_overload_answered) == 272, "base.overload_answered");
_Static_assert(offsetof(struct pmx_master, base_phase_ns) == 280, "base.phase_ns");
_Static_assert(offsetof(struct pmx_master, base_message_ns) == 344, "base.message_ns");
_Static_assert(offsetof(struct pmx_master, base_message_histogram) == 352, "base.message_histogram");
_Static_assert(offsetof(struct pmx_master, histogram_copy) == 608, "histogram_copy");
_Static_assert(offsetof(struct pmx_master, late_answers) == 616, "late_answers");
enum {
  PMX_MASTER_STATE_FREE = 0,
  PMX_MASTER_STATE_STARTING = 1,
  PMX_MASTER_STATE_LIVE = 2,
  PMX_MASTER_STATE_RETIRING = 3,
  PMX_MASTER_STATE_EMPTY = 4
};
enum {
  PMX_MASTER_RETIRE_REASON_NONE = 0,
  PMX_MASTER_RETIRE_REASON_IDLE = 1,
  PMX_MASTER_RETIRE_REASON_CONNECTIONS = 2,
  PMX_MASTER_RETIRE_REASON_MESSAGES = 3,
  PMX_MASTER_RETIRE_REASON_AGE = 4,
  PMX_MASTER_RETIRE_REASON_RSS = 5,
  PMX_MASTER_RETIRE_REASON_STOP = 6,
  PMX_MASTER_RETIRE_REASON_RESTART = 7,
  PMX_MASTER_RETIRE_REASON_UNRESPONSIVE = 8
};
enum {
  PMX_MASTER_BASE_VERDICTS_ACCEPT = 0,
  PMX_MASTER_BASE_VERDICTS_REJECT = 1,
  PMX_MASTER_BASE_VERDICTS_TEMPFAIL = 2,
  PMX_MASTER_BASE_VERDICTS_DISCARD = 3,
  PMX_MASTER_BASE_VERDICTS_QUARANTINE = 4,
  PMX_MASTER_BASE_VERDICTS_ERROR = 5
};
enum {
  PMX_MASTER_BASE_SESSIONS_ACCEPT = 0,
  PMX_MASTER_BASE_SESSIONS_REJECT = 1,
  PMX_MASTER_BASE_SESSIONS_TEMPFAIL = 2,
  PMX_MASTER_BASE_SESSIONS_ERROR = 3
};
enum {
  PMX_MASTER_BASE_PHASE_NS_IDLE = 0,
  PMX_MASTER_BASE_PHASE_NS_CONNECT = 1,
  PMX_MASTER_BASE_PHASE_NS_MAIL = 2,
  PMX_MASTER_BASE_PHASE_NS_RCPT = 3,
  PMX_MASTER_BASE_PHASE_NS_DATA = 4,
  PMX_MASTER_BASE_PHASE_NS_HEADER = 5,
  PMX_MASTER_BASE_PHASE_NS_BODY = 6,
  PMX_MASTER_BASE_PHASE_NS_EOM = 7
};

struct pmx_child {
  uint64_t incarnation; /* plain | the process that writes */
  uint64_t counters_connections_completed; /* counter | connections: finished, overload answers included */
  uint64_t counters_messages_started; /* counter | messages: begun */
  uint64_t counters_messages_aborted; /* counter | messages: ended without a final reply */
  uint64_t counters_verdicts[6]; /* counter | messages: processed, by verdict */
  uint64_t counters_sessions[4]; /* counter | sessions: verdicts other than continue at connect and helo */
  uint64_t counters_recipients_refused; /* counter | recipients: refused */
  uint64_t counters_overload_answered; /* counter | connections: answered without the policy, as the milter was full */
  uint64_t counters_phase_ns[8]; /* counter | ns: time in callbacks, by phase */
  uint64_t counters_message_ns; /* counter | ns: from first packet to final reply, summed over processed messages */
  uint64_t counters_message_histogram[32]; /* counter | messages: processed, by duration: upper bounds in seconds */
  uint64_t interpreters; /* gauge | interpreters: that exist now */
  uint64_t interpreter_sequence; /* counter | interpreters: made so far */
  uint64_t queue; /* gauge | connections: taken, waiting for an interpreter */
  uint64_t phase; /* enum | where the work in hand is */
  uint64_t phase_since_ns; /* plain | ns: CLOCK_BOOTTIME since when */
  uint64_t connections_taken; /* counter | connections: picked up so far */
  uint64_t last_verdict; /* enum | of the last processed message */
  uint64_t published_ns; /* plain | ns: CLOCK_BOOTTIME of this publication */
  uint64_t queue_id[9]; /* text | queue id of the work in hand; length, then bytes */
  uint64_t doing[17]; /* text | what it is about, for people; length, then bytes */
  uint64_t late_answers; /* counter | answers: after the MTA had given up */
  uint64_t suspended; /* gauge | callbacks: that wait */
  uint64_t reserved[3];
};
_Static_assert(sizeof(struct pmx_child) == 768, "pmx_child");
_Static_assert(offsetof(struct pmx_child, incarnation) == 0, "incarnation");
_Static_assert(offsetof(struct pmx_child, counters_connections_completed) == 8, "counters.connections_completed");
_Static_assert(offsetof(struct pmx_child, counters_messages_started) == 16, "counters.messages_started");
_Static_assert(offsetof(struct pmx_child, counters_messages_aborted) == 24, "counters.messages_aborted");
_Static_assert(offsetof(struct pmx_child, counters_verdicts) == 32, "counters.verdicts");
_Static_assert(offsetof(struct pmx_child, counters_sessions) == 80, "counters.sessions");
_Static_assert(offsetof(struct pmx_child, counters_recipients_refused) == 112, "counters.recipients_refused");
_Static_assert(offsetof(struct pmx_child, counters_overload_answered) == 120, "counters.overload_answered");
_Static_assert(offsetof(struct pmx_child, counters_phase_ns) == 128, "counters.phase_ns");
_Static_assert(offsetof(struct pmx_child, counters_message_ns) == 192, "counters.message_ns");
_Static_assert(offsetof(struct pmx_child, counters_message_histogram) == 200, "counters.message_histogram");
_Static_assert(offsetof(struct pmx_child, interpreters) == 456, "interpreters");
_Static_assert(offsetof(struct pmx_child, interpreter_sequence) == 464, "interpreter_sequence");
_Static_assert(offsetof(struct pmx_child, queue) == 472, "queue");
_Static_assert(offsetof(struct pmx_child, phase) == 480, "phase");
_Static_assert(offsetof(struct pmx_child, phase_since_ns) == 488, "phase_since_ns");
_Static_assert(offsetof(struct pmx_child, connections_taken) == 496, "connections_taken");
_Static_assert(offsetof(struct pmx_child, last_verdict) == 504, "last_verdict");
_Static_assert(offsetof(struct pmx_child, published_ns) == 512, "published_ns");
_Static_assert(offsetof(struct pmx_child, queue_id) == 520, "queue_id");
_Static_assert(offsetof(struct pmx_child, doing) == 592, "doing");
_Static_assert(offsetof(struct pmx_child, late_answers) == 728, "late_answers");
_Static_assert(offsetof(struct pmx_child, suspended) == 736, "suspended");
enum {
  PMX_CHILD_COUNTERS_VERDICTS_ACCEPT = 0,
  PMX_CHILD_COUNTERS_VERDICTS_REJECT = 1,
  PMX_CHILD_COUNTERS_VERDICTS_TEMPFAIL = 2,
  PMX_CHILD_COUNTERS_VERDICTS_DISCARD = 3,
  PMX_CHILD_COUNTERS_VERDICTS_QUARANTINE = 4,
  PMX_CHILD_COUNTERS_VERDICTS_ERROR = 5
};
enum {
  PMX_CHILD_COUNTERS_SESSIONS_ACCEPT = 0,
  PMX_CHILD_COUNTERS_SESSIONS_REJECT = 1,
  PMX_CHILD_COUNTERS_SESSIONS_TEMPFAIL = 2,
  PMX_CHILD_COUNTERS_SESSIONS_ERROR = 3
};
enum {
  PMX_CHILD_COUNTERS_PHASE_NS_IDLE = 0,
  PMX_CHILD_COUNTERS_PHASE_NS_CONNECT = 1,
  PMX_CHILD_COUNTERS_PHASE_NS_MAIL = 2,
  PMX_CHILD_COUNTERS_PHASE_NS_RCPT = 3,
  PMX_CHILD_COUNTERS_PHASE_NS_DATA = 4,
  PMX_CHILD_COUNTERS_PHASE_NS_HEADER = 5,
  PMX_CHILD_COUNTERS_PHASE_NS_BODY = 6,
  PMX_CHILD_COUNTERS_PHASE_NS_EOM = 7
};
enum {
  PMX_CHILD_PHASE_IDLE = 0,
  PMX_CHILD_PHASE_CONNECT = 1,
  PMX_CHILD_PHASE_MAIL = 2,
  PMX_CHILD_PHASE_RCPT = 3,
  PMX_CHILD_PHASE_DATA = 4,
  PMX_CHILD_PHASE_HEADER = 5,
  PMX_CHILD_PHASE_BODY = 6,
  PMX_CHILD_PHASE_EOM = 7
};
enum {
  PMX_CHILD_LAST_VERDICT_NONE = 0,
  PMX_CHILD_LAST_VERDICT_ACCEPT = 1,
  PMX_CHILD_LAST_VERDICT_REJECT = 2,
  PMX_CHILD_LAST_VERDICT_TEMPFAIL = 3,
  PMX_CHILD_LAST_VERDICT_DISCARD = 4,
  PMX_CHILD_LAST_VERDICT_QUARANTINE = 5,
  PMX_CHILD_LAST_VERDICT_ERROR = 6
};

struct pmx_second {
  uint64_t number; /* plain | number of the entry, from 1; 0 while it is written */
  uint64_t at_ns; /* plain | ns: CLOCK_BOOTTIME */
  uint64_t busy; /* gauge | slots: with a connection in progress */
  uint64_t slots_in_use; /* gauge | slots: with a process */
  uint64_t requests; /* gauge | connections: in progress */
  uint64_t waiting; /* gauge | connections: in the master's hands or waiting for an interpreter */
  uint64_t backlog; /* gauge | connections: in the kernel's queue of the port; 2^64 - 1 when it does not tell */
  uint64_t accepted; /* counter | connections: accepted */
  uint64_t verdicts[6]; /* counter | messages: processed, by verdict */
  uint64_t aborted; /* counter | messages: ended without a final reply */
  uint64_t lost_connections; /* counter | connections: cut by deaths */
};
_Static_assert(sizeof(struct pmx_second) == 128, "pmx_second");
_Static_assert(offsetof(struct pmx_second, number) == 0, "number");
_Static_assert(offsetof(struct pmx_second, at_ns) == 8, "at_ns");
_Static_assert(offsetof(struct pmx_second, busy) == 16, "busy");
_Static_assert(offsetof(struct pmx_second, slots_in_use) == 24, "slots_in_use");
_Static_assert(offsetof(struct pmx_second, requests) == 32, "requests");
_Static_assert(offsetof(struct pmx_second, waiting) == 40, "waiting");
_Static_assert(offsetof(struct pmx_second, backlog) == 48, "backlog");
_Static_assert(offsetof(struct pmx_second, accepted) == 56, "accepted");
_Static_assert(offsetof(struct pmx_second, verdicts) == 64, "verdicts");
_Static_assert(offsetof(struct pmx_second, aborted) == 112, "aborted");
_Static_assert(offsetof(struct pmx_second, lost_connections) == 120, "lost_connections");
enum {
  PMX_SECOND_VERDICTS_ACCEPT = 0,
  PMX_SECOND_VERDICTS_REJECT = 1,
  PMX_SECOND_VERDICTS_TEMPFAIL = 2,
  PMX_SECOND_VERDICTS_DISCARD = 3,
  PMX_SECOND_VERDICTS_QUARANTINE = 4,
  PMX_SECOND_VERDICTS_ERROR = 5
};

struct pmx_event {
  uint64_t number; /* plain | number of the entry, from 1; 0 while it is written */
  uint64_t at_ns; /* plain | ns: CLOCK_BOOTTIME */
  uint64_t kind; /* enum | what happened */
  uint64_t slot; /* plain | slot, or 2^64 - 1 when it is about the milter */
  uint64_t pid; /* plain | pid, or 0 */
  uint64_t value; /* plain | start, restart: generation; stop: signal; fork: processes of the slot; retire: retire_reason; death: as end of a death; full: not_accepting; room: ns it lasted; backoff: ns it will; abort: connections in progress */
  uint64_t reserved[2];
};
_Static_assert(sizeof(struct pmx_event) == 64, "pmx_event");
_Static_assert(offsetof(struct pmx_event, number) == 0, "number");
_Static_assert(offsetof(struct pmx_event, at_ns) == 8, "at_ns");
_Static_assert(offsetof(struct pmx_event, kind) == 16, "kind");
_Static_assert(offsetof(struct pmx_event, slot) == 24, "slot");
_Static_assert(offsetof(struct pmx_event, pid) == 32, "pid");
_Static_assert(offsetof(struct pmx_event, value) == 40, "value");
enum {
  PMX_EVENT_KIND_START = 1,
  PMX_EVENT_KIND_STOP = 2,
  PMX_EVENT_KIND_FORK = 3,
  PMX_EVENT_KIND_READY = 4,
  PMX_EVENT_KIND_RETIRE = 5,
  PMX_EVENT_KIND_DEATH = 6,
  PMX_EVENT_KIND_FULL = 7,
  PMX_EVENT_KIND_ROOM = 8,
  PMX_EVENT_KIND_BACKOFF = 9,
  PMX_EVENT_KIND_RESTART = 10,
  PMX_EVENT_KIND_RESOURCES = 11,
  PMX_EVENT_KIND_ABORT = 12
};

struct pmx_histograms {
  uint64_t connect[16]; /* counter | answers: by duration: upper bounds in seconds */
  uint64_t mail[16]; /* counter | answers: by duration: upper bounds in seconds */
  uint64_t rcpt[16]; /* counter | answers: by duration: upper bounds in seconds */
  uint64_t data[16]; /* counter | answers: by duration: upper bounds in seconds */
  uint64_t header[16]; /* counter | answers: by duration: upper bounds in seconds */
  uint64_t body[16]; /* counter | answers: by duration: upper bounds in seconds */
  uint64_t eom[16]; /* counter | answers: by duration: upper bounds in seconds */
};
_Static_assert(sizeof(struct pmx_histograms) == 896, "pmx_histograms");
_Static_assert(offsetof(struct pmx_histograms, connect) == 0, "connect");
_Static_assert(offsetof(struct pmx_histograms, mail) == 128, "mail");
_Static_assert(offsetof(struct pmx_histograms, rcpt) == 256, "rcpt");
_Static_assert(offsetof(struct pmx_histograms, data) == 384, "data");
_Static_assert(offsetof(struct pmx_histograms, header) == 512, "header");
_Static_assert(offsetof(struct pmx_histograms, body) == 640, "body");
_Static_assert(offsetof(struct pmx_histograms, eom) == 768, "eom");

#endif
