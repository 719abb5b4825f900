"""Prints scoreboards of pmx-milter for Prometheus (classic text): python3 exporter.py FILE...

It knows no counter by name: names, units, kinds and help come from the schema that every board carries, so that it shows the
fields of later versions as well. What it does know is how a board is read (FORMAT.md): the latch, which child's record counts,
and which copy of a histogram. For the textfile collector: write to another name, then rename.
"""
import fcntl, json, os, re, struct, sys

UNKNOWN = 2**64 - 1  # in a gauge: nobody can tell


class Board:
    def __init__(self, path):
        self.fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self.size = os.fstat(self.fd).st_size
        if self.size < 512 or os.pread(self.fd, 8, 0) != b"\x89PMXSB\r\n":
            sys.exit(path + ": it is no scoreboard")
        head = self.words(0, 64)
        if head[2] != 0x0102030405060708:
            sys.exit(path + ": it was written by a machine of the other byte order")
        if head[1] >> 32 != 1:
            sys.exit("%s: its format is %d.%d, and this program reads 1.x" % (path, head[1] >> 32, head[1] & 0xFFFFFFFF))
        if head[26] != 1 or head[4] != self.size or head[12] > 65536:
            sys.exit(path + ": it is no complete scoreboard")
        schema = json.loads(os.pread(self.fd, head[14], head[13]))
        self.areas = schema["areas"]
        self.fields = {}
        for field in schema["fields"]:
            self.fields.setdefault(field["area"], []).append(field)
        self.head = {field["name"]: head[field["word"]] for field in self.fields["header"]}

    def words(self, offset, count):
        return struct.unpack("=%dQ" % count, os.pread(self.fd, 8 * count, offset))

    def place(self, told):
        """An offset of the schema: a number, a name of the header, or a sum of such."""
        return sum(self.head.get(part, 0) if part in self.head else int(part) for part in str(told).split("+"))

    def latch(self, area, slot):
        """Version and copies of a record."""
        told = self.areas[area]
        start = self.place(told["offset"]) + slot * self.place(told["stride"]) if "offset" in told else 0
        return start + self.place(told["version"]), [start + self.place(copy) for copy in told["copies"]], told["words"]

    def value(self, area, record, name):
        return next(record[field["word"]] for field in self.fields[area] if field["name"] == name)

    def read(self, *places, then=lambda records: []):
        """Records as they stood at one instant, and what `then` reads after them, proven by the same versions."""
        for _ in range(64):
            before = [self.words(version, 1)[0] for version, _, _ in places]
            records = [self.words(copies[v & 1], count) for (_, copies, count), v in zip(places, before)]
            more = then(records)
            if before == [self.words(version, 1)[0] for version, _, _ in places]:
                break
        return records, more

    def counts(self, master, child):
        """Whether the child's record is of the process that the master says is in the slot."""
        states = next(field["values"] for field in self.fields["master"] if field["name"] == "state")
        state = states.get(str(self.value("master", master, "state")))
        incarnation = self.value("master", master, "incarnation")
        return state not in ("free", "empty") and incarnation and self.value("child", child, "incarnation") == incarnation

    def histograms(self, slot, child, master):
        """Of all processes of a slot, word by word; None where the board has none (1.0)."""
        told = self.areas.get("histograms")
        if not told or not self.place(told["child"]):
            return None
        of_master, of_child = self.latch("master", slot)[0], self.latch("child", slot)[0]
        copy = told["master"][self.value("master", master, "histogram_copy") & 1]
        earlier = self.words(of_master + self.place(copy), told["words"])
        now = self.words(of_child + self.place(told["child"]), told["words"])
        return [a + b for a, b in zip(earlier, now)] if self.counts(master, child) else earlier

    def alive(self):
        lock = fcntl.fcntl(self.fd, fcntl.F_OFD_GETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 0, 1, 0))
        return struct.unpack("hhqqi4x", lock)[0] != fcntl.F_UNLCK


families = {}


def escape(text):
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def sample(family, kind, text, suffix, labels, value):
    """Samples of a family stand together, whichever board and slot they come from."""
    shown = ",".join('%s="%s"' % (name, escape(str(label))) for name, label in labels.items())
    rows = families.setdefault(family, (kind, text.replace("\\", "\\\\"), []))[2]
    rows.append("%s%s{%s} %s" % (family, suffix, shown, value))


def member(field):
    """A field's name without its group: a slot's two records group the same counters under names of their own."""
    return field["name"].rpartition(".")[2]


def show(field, values, labels, area):
    """A field of a record, by its kind; plain words, flags and texts are no measurements."""
    kind, unit, names = field["kind"], field["unit"], field.get("labels", [])
    name = re.sub("_ns$", "", "pmx_%s_%s" % (area, member(field)))
    scale = (lambda word: word / 1e9) if unit == "ns" else (lambda word: word)
    if unit in ("ns", "bytes") and not name.endswith(unit):
        name += {"ns": "_seconds", "bytes": "_bytes"}[unit]
    if kind == "enum":
        for number, value in field["values"].items():
            sample(name, "gauge", field["help"], "", {**labels, "is": value}, int(values[0] == int(number)))
    elif kind == "counter" and names[-1:] == ["+Inf"]:
        total = 0
        for bound, count in zip(names, values):
            total += count
            sample(name, "histogram", field["help"], "_bucket", {**labels, "le": bound}, scale(total))
        sample(name, "histogram", field["help"], "_count", labels, scale(total))
    elif kind in ("counter", "gauge"):
        suffix = "_total" if kind == "counter" else ""
        for index, value in enumerate(values):
            if kind == "gauge" and value == UNKNOWN:
                continue
            more = {"of": names[index]} if names else {"word": index} if len(values) > 1 else {}
            sample(name + suffix, kind, field["help"], "", {**labels, **more}, scale(value))


def cut(field, record):
    return record[field["word"] : field["word"] + field["words"]]


def export(path):
    board = Board(path)
    milter = {"milter": re.sub(r"\.scoreboard(\.last)?$", "", os.path.basename(path))}
    sample("pmx_board_alive", "gauge", "whether a master holds the board's lock", "", milter, int(board.alive()))
    (record,), _ = board.read(board.latch("global", 0))
    for field in board.fields["global"]:
        show(field, cut(field, record), milter, "global")
    for slot in range(min(board.value("global", record, "slots_high_water"), board.head["nslots"])):
        labels = {**milter, "slot": slot}
        (child, master), buckets = board.read(
            board.latch("child", slot), board.latch("master", slot), then=lambda records: board.histograms(slot, *records)
        )
        # A record that does not count reads as 0: what its process counted is in the master's by then.
        child = child if board.counts(master, child) else (0,) * len(child)
        # A counter that both records have is of earlier processes in the master's, of the present one in the child's: their sum is the
        # slot's, and steps back at no death.
        both = {member(field): field for field in board.fields["child"] if field["kind"] == "counter"}
        for field in board.fields["master"]:
            other = both.pop(member(field), None) if field["kind"] == "counter" else None
            values = cut(field, master)
            if other:
                show(other, [a + b for a, b in zip(values, cut(other, child))], labels, "slot")
            else:
                show(field, values, labels, "master")
        for field in board.fields["child"]:
            if field["kind"] != "counter" or member(field) in both:
                show(field, cut(field, child), labels, "child")
        for field in board.fields["histograms"] if buckets else []:
            show(field, cut(field, buckets), labels, "phase")


for path in sys.argv[1:] or sys.exit("usage: python3 exporter.py FILE..."):
    export(path)
for family, (kind, text, rows) in families.items():
    print("# HELP %s %s\n# TYPE %s %s" % (family, text, family, kind), *rows, sep="\n")
