/* Prints a scoreboard of pmx-milter as JSON, the same as read_board.py: cc -std=c11 -o read_board read_board.c && ./read_board FILE

   It maps the file read-only and reads it with C11 atomics: relaxed loads and acquire fences, which is what FORMAT.md proves. Acquire
   loads are not used, for they need not work on read-only memory. Whoever can write the file (its owner alone) could cut it short, and
   this program would then end by SIGBUS: one that must not uses pread, as read_board.py does. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pmx_scoreboard.h"

#define TRIES 64
#define WORDS(record) (sizeof(struct record) / 8)

static const _Atomic uint64_t *board;
static struct pmx_header head;

static _Noreturn void die(const char *why) {
  fprintf(stderr, "%s\n", why);
  exit(1);
}

static uint64_t add(uint64_t a, uint64_t b) { return a + b < a ? UINT64_MAX : a + b; }
static uint64_t sub(uint64_t a, uint64_t b) { return a > b ? a - b : 0; }

static uint64_t word(uint64_t offset) { return atomic_load_explicit(&board[offset / 8], memory_order_relaxed); }

static void copy(uint64_t offset, void *to, uint64_t words) {
  uint64_t *out = to;
  for (uint64_t n = 0; n < words; n++) out[n] = word(offset + 8 * n);
}

struct latch {
  uint64_t version, copies[2], words; /* offsets of version and copies; words that we know and the file has */
  void *to;
};

/* Copies records as they stood at one instant, the first one first; after so many lost races what was copied last stands. */
static void read_latches(const struct latch *latch, int count) {
  for (int try = 0; try < TRIES; try++) {
    uint64_t before[2];
    bool same = true;
    for (int n = 0; n < count; n++) before[n] = word(latch[n].version);
    atomic_thread_fence(memory_order_acquire); /* pairs with the release of the version by its writer */
    for (int n = 0; n < count; n++) {
      copy(latch[n].copies[before[n] & 1], latch[n].to, latch[n].words);
      atomic_thread_fence(memory_order_acquire); /* pairs with the writer's fence before it fills a copy */
    }
    for (int n = 0; n < count; n++) same = same && word(latch[n].version) == before[n];
    if (same) return;
  }
}

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* Whether `slots` strides from `offset` on lie in the file, and the copies in a stride. */
static bool fits(uint64_t offset, uint64_t stride, uint64_t copy_0, uint64_t copy_1, uint64_t length) {
  uint64_t area;
  return offset % 8 == 0 && stride % 8 == 0 && length % 8 == 0 && length <= stride && copy_0 + length <= copy_1 &&
         copy_1 <= stride && length <= stride - copy_1 && !__builtin_mul_overflow(stride, head.nslots, &area) &&
         area <= head.file_size && offset <= head.file_size - area;
}

static void open_board(const char *path, int *fd) {
  struct stat stat;
  *fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
  if (*fd < 0 || fstat(*fd, &stat)) die("it cannot be opened");
  if (!S_ISREG(stat.st_mode) || stat.st_size < (off_t)sizeof head) die("it is no scoreboard");
  void *map = mmap(NULL, (size_t)stat.st_size, PROT_READ, MAP_SHARED, *fd, 0);
  if (map == MAP_FAILED) die("it cannot be mapped");
  board = map;
  copy(0, &head, WORDS(pmx_header));
  if (memcmp(&head.magic, PMX_MAGIC, 8)) die("it is no scoreboard");
  if (head.endian != PMX_ENDIAN) die("it was written by a machine of the other byte order");
  if (head.abi >> 32 != PMX_MAJOR) {
    fprintf(stderr, "its format is %" PRIu64 ".%" PRIu64 ", and this program reads %d.x\n", head.abi >> 32,
            head.abi & UINT32_MAX, PMX_MAJOR);
    exit(1);
  }
  if (head.ready != PMX_READY || head.file_size != (uint64_t)stat.st_size) die("it is no complete scoreboard");
  if (head.file_size < PMX_DEATHS_OFFSET || head.nslots > PMX_MAX_SLOTS || head.m_copy_len > head.m_stride ||
      head.c_copy_len > PMX_CHILD_ROOM ||
      !fits(head.m_off, head.m_stride, PMX_LINE, PMX_LINE + head.m_copy_len, head.m_copy_len) ||
      !fits(head.c_off, head.c_stride, PMX_LINE, PMX_CHILD_COPY_1, head.c_copy_len))
    die("its header is damaged");
}

struct row {
  uint64_t pid, taken, of_slot, processes, requests, messages;
};

static struct row read_slot(uint64_t slot) {
  struct pmx_master master = {0};
  struct pmx_child child = {0};
  uint64_t m = head.m_off + slot * head.m_stride, c = head.c_off + slot * head.c_stride;
  /* A later version has longer records, an earlier one shorter ones. */
  const struct latch latches[] = {
      {c, {c + PMX_LINE, c + PMX_CHILD_COPY_1}, least(WORDS(pmx_child), head.c_copy_len / 8), &child},
      {m, {m + PMX_LINE, m + PMX_LINE + head.m_copy_len}, least(WORDS(pmx_master), head.m_copy_len / 8), &master},
  };
  read_latches(latches, 2);
  bool used = master.state != PMX_MASTER_STATE_FREE && master.state != PMX_MASTER_STATE_EMPTY;
  if (!used || !master.incarnation || child.incarnation != master.incarnation) memset(&child, 0, sizeof child);
  struct row row = {.pid = master.pid, .processes = master.processes};
  row.taken = used ? sub(master.dispatched, master.returned) : 0;
  row.of_slot = add(row.taken, sub(master.dispatched_before, master.returned_before));
  row.requests = sub(row.taken, child.counters_connections_completed); /* never below 0, whatever the child claims */
  for (size_t n = 0; n < sizeof child.counters_verdicts / 8; n++)
    row.messages = add(row.messages, add(master.base_verdicts[n], child.counters_verdicts[n]));
  return row;
}

int main(int argc, char **argv) {
  int fd;
  if (argc != 2) die("usage: read_board FILE");
  open_board(argv[1], &fd);
  struct pmx_global global = {0};
  const struct latch latch = {PMX_GLOBAL_VERSION, {PMX_GLOBAL_COPY_0, PMX_GLOBAL_COPY_1}, WORDS(pmx_global), &global};
  read_latches(&latch, 1);
  uint64_t slots = least(global.slots_high_water, head.nslots), requests = 0, messages = 0;
  struct row *rows = calloc(slots ? slots : 1, sizeof *rows);
  if (!rows) die("no memory");
  for (uint64_t n = 0; n < slots; n++) {
    rows[n] = read_slot(n);
    requests = add(requests, rows[n].requests);
    messages = add(messages, rows[n].messages);
  }
  struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
  bool alive = fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
  printf("{\"state\": %" PRIu64 ", \"alive\": %s, \"pid\": %" PRIu64 ", \"requests\": %" PRIu64 ", \"messages\": %" PRIu64
         ", \"slots\": [",
         global.state, alive ? "true" : "false", head.master_pid, requests, messages);
  for (uint64_t n = 0; n < slots; n++)
    printf("%s{\"slot\": %" PRIu64 ", \"pid\": %" PRIu64 ", \"acc\": [%" PRIu64 ", %" PRIu64 ", %" PRIu64
           "], \"requests\": %" PRIu64 ", \"messages\": %" PRIu64 "}",
           n ? ", " : "", n, rows[n].pid, rows[n].taken, rows[n].of_slot, rows[n].processes, rows[n].requests,
           rows[n].messages);
  puts("]}");
  free(rows);
  return 0;
}
