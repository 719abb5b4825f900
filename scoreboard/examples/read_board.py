"""Prints a scoreboard of pmx-milter as JSON: python3 read_board.py FILE. The format stands in FORMAT.md."""
import fcntl, json, os, struct, sys

fd = os.open(sys.argv[1], os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
words = lambda offset, count: struct.unpack("<%dQ" % count, os.pread(fd, 8 * count, offset))
head = words(0, 64)
if os.pread(fd, 8, 0) != b"\x89PMXSB\r\n" or head[1] >> 32 != 1 or head[2] != 0x0102030405060708:
    sys.exit("not a scoreboard of format 1")
if head[26] != 1 or head[4] != os.fstat(fd).st_size:
    sys.exit("not a complete scoreboard")

def latch(*records):  # each: offset of its version, offsets of its two copies, words; all come from one instant
    for _ in range(64):
        before = [words(version, 1)[0] for version, _, _ in records]
        data = [words(copies[v & 1], count) for (_, copies, count), v in zip(records, before)]
        if before == [words(version, 1)[0] for version, _, _ in records]:
            break
    return data

board, = latch((512, (640, 1920), 160))
slots = []
for n in range(min(board[16], head[12])):
    m, c = head[6] + n * head[7], head[9] + n * head[10]
    m, c = latch((m, (m + 128, m + 128 + head[8]), 96), (c, (c + 128, c + 2112), 96))
    used = m[0] not in (0, 4)  # neither free nor empty
    mine = c[1:57] if used and c[0] == m[1] else (0,) * 56  # same incarnation, or not there
    taken = m[6] - m[7] if used else 0
    slots.append({"slot": n, "pid": m[2], "acc": [taken, taken + m[8] - m[9], m[5]],
                  "requests": taken - min(mine[0], taken), "messages": sum(m[23:29]) + sum(mine[3:9])})
lock = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 0, 1, 0))
alive = struct.unpack("hhqqi4x", lock)[0] != fcntl.F_UNLCK
print(json.dumps({"state": board[0], "alive": alive, "pid": head[19], "slots": slots}))
