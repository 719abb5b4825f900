"""Prints a scoreboard of pmx-milter as JSON: python3 read_board.py FILE. The format stands in FORMAT.md."""
import fcntl, json, os, struct, sys

fd = os.open(sys.argv[1], os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
words = lambda offset, count: struct.unpack("=%dQ" % count, os.pread(fd, 8 * count, offset))
sat = lambda *numbers: min(sum(numbers), 2**64 - 1)  # a child may claim anything
size = os.fstat(fd).st_size
head = words(0, 64) if size >= 512 else (0,) * 64
if size < 512 or os.pread(fd, 8, 0) != b"\x89PMXSB\r\n":
    sys.exit("it is no scoreboard")
if head[2] != 0x0102030405060708:
    sys.exit("it was written by a machine of the other byte order")
if head[1] >> 32 != 1:
    sys.exit("its format is %d.%d, and this program reads 1.x" % (head[1] >> 32, head[1] & 0xFFFFFFFF))
if head[26] != 1 or head[4] != size or head[12] > 65536:
    sys.exit("it is no complete scoreboard")

def latch(*records):  # each: offset of its version, offsets of its two copies, words; all come from one instant
    for _ in range(64):
        before = [words(version, 1)[0] for version, _, _ in records]
        data = [words(copies[v & 1], count) for (_, copies, count), v in zip(records, before)]
        if before == [words(version, 1)[0] for version, _, _ in records]:
            break
    return data

board, = latch((512, (640, 1920), 160))
slots = []
for n in range(min(board[16], head[12])):  # slots ever used
    m, c = head[6] + n * head[7], head[9] + n * head[10]
    c, m = latch((c, (c + 128, c + 2112), 96), (m, (m + 128, m + 128 + head[8]), 96))
    used = m[0] not in (0, 4)  # neither free nor empty
    mine = c[1:57] if used and m[1] and c[0] == m[1] else (0,) * 56  # of the same incarnation, or as if not there
    taken, before = max(0, m[6] - m[7]) if used else 0, max(0, m[8] - m[9])
    slots.append({"slot": n, "pid": m[2], "acc": [taken, sat(taken, before), m[5]],
                  "requests": taken - min(mine[0], taken), "messages": sat(*m[23:29], *mine[3:9])})
lock = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 0, 1, 0))
alive = struct.unpack("hhqqi4x", lock)[0] != fcntl.F_UNLCK
total = lambda name: sat(*(slot[name] for slot in slots))
print(json.dumps({"state": board[0], "alive": alive, "pid": head[19], "requests": total("requests"),
                  "messages": total("messages"), "slots": slots}))
