//! What a user of `top` sees, line by line, on a terminal of 80 x 24.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bytemuck::Zeroable;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Color;
use scoreboard::{
    ChildRecord, Cut, Death, Event, EventKind, GlobalRecord, Header, History, Liveness, Lock,
    MasterRecord, NotAccepting, Phase, Second, Slot, SlotState, Snapshot, encode_end, put_text,
};

use super::appearance::Appearance;
use super::model::{Model, Seen, Step};
use super::{draw, keys, picture};
use crate::control::status::State;

const SECOND: u64 = 1_000_000_000;
const NOW: u64 = 100_000 * SECOND;

fn slot(index: u32, pid: u64, requests: u64, messages: u64) -> Slot {
    let mut master = MasterRecord::zeroed();
    master.state = SlotState::Live.word();
    master.incarnation = 1;
    master.pid = pid;
    master.forked_at_ns = NOW - 7_500 * SECOND + u64::from(index) * 600 * SECOND;
    master.dispatched = messages + requests;
    master.rss_bytes = (40 - u64::from(index)) << 20;
    let mut child = ChildRecord::zeroed();
    child.incarnation = 1;
    child.counters.connections_completed = messages;
    child.counters.messages_started = messages;
    child.counters.verdicts[0] = messages;
    child.phase_since_ns = NOW - 90 * SECOND;
    Slot {
        index,
        master,
        child: Some(child),
        consistent: true,
        histograms: None,
    }
}

/// The slot works on something since so many tenths of a second.
fn at(mut slot: Slot, phase: Phase, tenths: u64, queue_id: &str, doing: &str) -> Slot {
    let child = slot.child.as_mut().unwrap();
    child.phase = phase.word();
    child.phase_since_ns = NOW - tenths * SECOND / 10;
    put_text(&mut child.queue_id, queue_id.as_bytes());
    put_text(&mut child.doing, doing.as_bytes());
    slot
}

fn board(slots: Vec<Slot>) -> Snapshot {
    let mut header = Header::zeroed();
    header.instance = [1, 2];
    header.created_boot_ns = NOW - 11_000 * SECOND;
    header.created_wall_ns = 5_000 * SECOND;
    let mut global = GlobalRecord::zeroed();
    global.heartbeat_ns = NOW - SECOND / 4;
    global.accepting = 1;
    global.accepted = 5_000;
    global.slots_in_use = slots.len() as u64;
    global.slots_max = 16;
    global.peak_requests = 9;
    global.command_timeout_ns = 10 * SECOND;
    global.content_timeout_ns = 300 * SECOND;
    global.backlog = u64::MAX;
    put_text(&mut global.port, b"inet:3366@127.0.0.1");
    Snapshot {
        header,
        global,
        global_consistent: true,
        slots,
        deaths: Vec::new(),
        liveness: Liveness {
            lock: Lock::Held,
            same_boot: Some(true),
            same_pid_namespace: Some(true),
        },
        now_ns: NOW,
        wall_ns: 7_000 * SECOND,
        cut: Cut::Atomic,
        retries: 0,
    }
}

fn seen(state: State, board: Option<Snapshot>) -> Seen {
    Seen {
        state,
        words: None,
        pid: board.as_ref().map(|_| 2345),
        orphans: 0,
        heartbeat_age: board.as_ref().map(Snapshot::heartbeat_age),
        board,
        history: History::default(),
    }
}

fn model() -> Model {
    let appearance = Appearance {
        colours: true,
        unicode: true,
    };
    let mut model = Model::new(appearance, Duration::from_secs(1));
    model.offer(
        ["policy", "spam"]
            .map(|name| name.parse().unwrap())
            .to_vec(),
    );
    model
}

fn showing(seen: Seen) -> Model {
    let mut model = model();
    model.see(seen);
    model
}

fn press(model: &mut Model, text: &str) -> Vec<Step> {
    let code = |c| match c {
        '\n' => KeyCode::Enter,
        '\t' => KeyCode::Tab,
        '↓' => KeyCode::Down,
        '\x1b' => KeyCode::Esc,
        '\x08' => KeyCode::Backspace,
        c => KeyCode::Char(c),
    };
    let mut press = |c| {
        let key = KeyEvent::new(code(c), KeyModifiers::NONE);
        keys::action(&key, model.mode).map(|action| model.act(action))
    };
    text.chars().filter_map(&mut press).collect()
}

fn terminal(model: &Model, width: u16, height: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| draw::draw(model, frame.area(), frame.buffer_mut()))
        .unwrap();
    terminal
}

/// The screen as text.
fn screen(model: &Model, width: u16, height: u16) -> Vec<String> {
    let terminal = terminal(model, width, height);
    let buffer = terminal.backend().buffer();
    let line = |y| {
        let cells = (0..width).map(|x| buffer.cell((x, y)).unwrap().symbol());
        cells.collect::<String>().trim_end().to_owned()
    };
    (0..height).map(line).collect()
}

#[track_caller]
fn assert_screen(model: &Model, expected: &str) {
    let screen = screen(model, 80, 24).join("\n");
    let screen = screen.trim_end();
    assert_eq!(screen, expected.trim_matches('\n'), "\n{screen}\n");
}

#[track_caller]
fn line_with(model: &Model, text: &str) -> String {
    let screen = screen(model, 80, 24);
    let found = screen.iter().find(|line| line.contains(text));
    let screen = screen.join("\n");
    found
        .unwrap_or_else(|| panic!("no line has {text:?}:\n{screen}"))
        .clone()
}

/// A milter that has done something for a while.
fn running() -> Seen {
    let mut first = slot(0, 2346, 1, 4_000);
    first.master.base.verdicts = [0, 30, 20, 3, 2, 1];
    let child = first.child.as_mut().unwrap();
    child.counters.message_histogram[4] = 3_600;
    child.counters.message_histogram[8] = 380;
    child.counters.message_histogram[16] = 20;
    child.counters.messages_aborted = 7;
    let mut histograms = scoreboard::PhaseHistograms::default();
    histograms.0[6][2] = 99;
    histograms.0[6][6] = 1;
    first.histograms = Some(Box::new(histograms));
    let first = at(first, Phase::Rcpt, 2, "4ABC", "from a@example.org");
    let mut third = slot(2, 2399, 0, 0);
    third.master.state = SlotState::Empty.word();
    third.child = None;
    let mut fourth = at(slot(3, 2400, 2, 12), Phase::Eom, 15, "4DEF", "12 KiB");
    fourth.master.state = SlotState::Retiring.word();
    let mut board = board(vec![first, slot(1, 2347, 0, 800), third, fourth]);
    board.global.slots_in_use = 3;
    let mut death = Death::zeroed();
    death.at_ns = NOW - 600 * SECOND;
    death.slot = 2;
    death.end = encode_end(None, Some(9));
    death.phase = Phase::Body.word();
    death.lost_connections = 1;
    put_text(&mut death.queue_id, b"4AAA\x1b[2J");
    board.deaths = vec![death];
    let mut seen = seen(State::Running, Some(board));
    for back in 0..120 {
        let mut second = Second::zeroed();
        second.at_ns = NOW - back * SECOND;
        second.accepted = 5_000 - back * 4;
        // 20 a second in the last minute, 10 in the one before.
        second.verdicts[0] = 4_812 - back * 10 - back.min(60) * 10;
        seen.history.seconds.push(second);
    }
    let event = |kind: EventKind, slot, pid, value, ago| {
        let mut event = Event::zeroed();
        event.kind = kind.word();
        event.slot = slot;
        event.pid = pid;
        event.value = value;
        event.at_ns = NOW - ago * SECOND;
        event
    };
    seen.history.events = vec![
        event(EventKind::Retire, 3, 2400, 2, 4),
        event(EventKind::Full, u64::MAX, 0, NotAccepting::Full.word(), 60),
        event(EventKind::Fork, 3, 2400, 7, 5_700),
        event(EventKind::Start, u64::MAX, 0, 1, 11_000),
    ];
    seen
}

#[test]
fn a_running_milter_is_seen_as_a_whole() {
    assert_screen(
        &showing(running()),
        "
policy: running  pid 2345  inet:3366@127.0.0.1  up 3h3m       1 of 2  every 1.0s
slots 3/16 (2 busy, 1 retiring)  req 3 (peak 9)  queue 0  waiting 0  backlog -
lost conn 0 msg 0  aborted 7  late 0  full for 0.0s  deaths 0
              conn     msg  accept  reject tempfail discard quarantine   error
per second     4.0    20.0    20.0     0.0      0.0     0.0        0.0     0.0
total         5000    4868    4812      30       20       3          2       1
msg/s                            ▄▄▄▄▄▄▆███████  last 5m36s, most 20.0/s
slot S     pid    age    rss   req     msg phase    since   left queue id doing
   0 R    2346   2h5m   40.0     1    4056 rcpt      0.2s   9.8s 4ABC from a@exa
   1 _    2347   115m   39.0     0     800 idle       90s      -
   2 .       -      -      -     0       0 -            -      -
   3 G    2400    95m   37.0    2*      12 eom       1.5s     4m 4DEF 12 KiB


at most    p50    p90    p99            at most    p50    p90    p99
message  1.0ms  1.0ms   16ms ██░░       data         -      -      -
connect      -      -      -            header       -      -      -
mail         -      -      -            body         -      -      -
rcpt         -      -      -            eom      256us  256us  256us ██
last deaths                                  last events
   10m slot 2 signal 9 (KILL) in body 4AAA�[   4.0s slot 3 retires: connections
                                                60s no room: full
                                                95m slot 3 new process 7, pid 24
q quit  h help  / filter  Tab milter  Space pause                        by slot
",
    );
}

#[test]
fn a_deadline_that_runs_out_is_an_alarm_and_so_is_a_full_pool() {
    let model = showing(seen(State::Running, Some(busy_board())));
    assert_screen(
        &model,
        "
policy: running  pid 2345  inet:3366@127.0.0.1  up 3h3m       1 of 2  every 1.0s
slots 3/16 (3 busy, 0 retiring)  req 5 (peak 9)  queue 0  waiting 0  backlog -
2 deadlines running out!  not accepting: full  lost conn 0 msg 0  aborted 0  lat
              conn     msg  accept  reject tempfail discard quarantine   error
per second       -       -       -       -        -       -          -       -
total         5000      15      15       0        0       0          0       0
msg/s the board has no seconds to remember yet
slot S     pid    age    rss   req     msg phase    since   left queue id doing
   0 R      11   2h5m   40.0     3       5 rcpt       12s -2.5s! QLATE to slow@e
   1 M      12   115m   39.0     1       5 mail      8.5s  1.5s! QNEAR
   2 E      13   105m   38.0     1       5 eom       8.5s     4m QFINE



at most    p50    p90    p99            at most    p50    p90    p99
message      -      -      -            data         -      -      -
connect      -      -      -            header       -      -      -
mail         -      -      -            body         -      -      -
rcpt         -      -      -            eom          -      -      -
last deaths                                  last events
  none                                         none


q quit  h help  / filter  Tab milter  Space pause                        by slot
",
    );
    // The same in colours: late red, nearly late yellow, in time green.
    let terminal = terminal(&model, 80, 24);
    let colour = |y| terminal.backend().buffer().cell((63, y)).unwrap().fg;
    assert_eq!(
        [colour(8), colour(9), colour(10)],
        [Color::Red, Color::Yellow, Color::Green]
    );
}

/// One answer is late, one nearly, one is in time.
fn busy_board() -> Snapshot {
    let mut board = board(vec![
        at(
            slot(0, 11, 3, 5),
            Phase::Rcpt,
            125,
            "QLATE",
            "to slow@example.net",
        ),
        at(slot(1, 12, 1, 5), Phase::Mail, 85, "QNEAR", ""),
        at(slot(2, 13, 1, 5), Phase::Eom, 85, "QFINE", ""),
    ]);
    board.global.accepting = 0;
    board.global.not_accepting = NotAccepting::Full.word();
    board.global.capacity_since_ns = NOW - 3 * SECOND;
    board
}

#[test]
fn a_dead_milter_is_a_post_mortem_without_clocks_and_rates() {
    let mut board = busy_board();
    board.liveness.lock = Lock::Free;
    board.global.heartbeat_ns = NOW - 7 * SECOND;
    let mut seen = seen(State::Dead, Some(board));
    seen.words = Some("the master is dead".to_owned());
    seen.orphans = 2;
    assert_screen(
        &showing(seen),
        "
policy: dead (heartbeat 7.0s old)  pid 2345  inet:3366@127.0.0.1
the master is dead; 2 orphans finish
slots 3/16 (3 busy, 0 retiring)  req 5 (peak 9)  queue 0  waiting 0  backlog -
lost conn 0 msg 0  aborted 0  late 0  full for 0.0s  deaths 0
              conn     msg  accept  reject tempfail discard quarantine   error
per second       -       -       -       -        -       -          -       -
total         5000      15      15       0        0       0          0       0
msg/s the board has no seconds to remember yet
slot S     pid    age    rss   req     msg phase    since   left queue id doing
   0 R      11      -   40.0     3       5 rcpt         -      - QLATE to slow@e
   1 M      12      -   39.0     1       5 mail         -      - QNEAR
   2 E      13      -   38.0     1       5 eom          -      - QFINE


at most    p50    p90    p99            at most    p50    p90    p99
message      -      -      -            data         -      -      -
connect      -      -      -            header       -      -      -
mail         -      -      -            body         -      -      -
rcpt         -      -      -            eom          -      -      -
last deaths                                  last events
  none                                         none


q quit  h help  / filter  Tab milter  Space pause                        by slot
",
    );
}

#[test]
fn a_milter_without_a_board_is_told_in_words() {
    for (state, word, words) in [
        (
            State::NotRunning,
            "policy: not running",
            "policy does not run; to start it: pmx-milter start policy",
        ),
        (
            State::Unreadable,
            "policy: unreadable",
            "cannot read the scoreboard /run/pmx/policy.scoreboard: it is too short",
        ),
        (
            State::Starting,
            "policy: starting",
            "its master has no scoreboard yet",
        ),
    ] {
        let mut seen = seen(state, None);
        seen.words = Some(words.to_owned());
        let model = showing(seen);
        assert!(line_with(&model, "1 of 2").starts_with(word));
        assert_eq!(line_with(&model, &words[..20]), words);
        line_with(&model, "It is looked for again and again.");
        line_with(&model, "q quit");
    }
    let mut none = model();
    none.offer(Vec::new());
    line_with(
        &none,
        "No milter is enabled, and none is in the run directory.",
    );
}

#[test]
fn the_filter_shows_what_matches_and_says_how_much_that_is() {
    let mut model = showing(running());
    press(&mut model, "/4def");
    let line = line_with(&model, "filter: ");
    assert!(line.starts_with("filter: 4def"), "{line}");
    assert!(
        line.ends_with("1 of 4 slots  Enter keeps, Esc clears"),
        "{line}"
    );
    assert!(line_with(&model, "4DEF").starts_with("   3 G    2400"));
    assert!(
        !screen(&model, 80, 24)
            .iter()
            .any(|line| line.contains("4ABC from"))
    );
    press(&mut model, "\n");
    assert!(line_with(&model, "q quit").ends_with("/4def (1 of 4)"));
    // By what it is doing, by phase, by state.
    for (filter, row) in [
        ("A@EXAMPLE", "   0 R"),
        ("idle", "   1 _"),
        ("empty", "   2 ."),
        ("retir", "   3 G"),
    ] {
        press(&mut model, "/\x1b/");
        press(&mut model, filter);
        line_with(&model, "filter: ");
        let rows: Vec<String> = screen(&model, 80, 24)[8..12].to_vec();
        assert!(
            rows[0].starts_with(row) && rows[1].is_empty(),
            "{filter}: {rows:?}"
        );
    }
    press(&mut model, "x");
    line_with(&model, "no slot matches the filter");
    press(&mut model, "\x1b");
    assert_eq!(model.rows().len(), 4);
}

#[test]
fn the_help_has_every_key() {
    let mut model = showing(running());
    press(&mut model, "?");
    assert_screen(
        &model,
        "
policy: running  pid 2345  inet:3366@127.0.0.1  up 3h3m       1 of 2  every 1.0s
slots 3/16 (2 busy, 1 retiring)  req 3 (peak 9)  queue 0  waiting 0  backlog -
l┌ keys of pmx-milter top ────────────────────────────────────────────────────┐
 │     q  quit; Esc and Ctrl-C too                                            │
p│   Tab  next milter; so does Right, and Left goes back                      │
t│  Down  scroll the slots; Up, PgDn, PgUp, Home and End too                  │
m│     s  order by slot                                                       │
s│     a  order by age                                                        │
 │     r  order by requests                                                   │a
 │     m  order by messages                                                   │
 │     M  order by memory; any of these again turns the order round           │
 │     /  filter over queue id, doing, phase, state; Enter keeps, Esc clears  │
 │ Space  pause, and go on                                                    │
 │     h  this help; ? too                                                    │
a│                                                                            │
m│S: _ idle, S starting, G retiring, . empty; else the phase's initial        │
c│left: how long the MTA still waits; ! it runs out, - it gave up             │
m│req: connections in progress; * the child is retiring                       │
r│at most: 50, 90, 99 of 100 took no longer, since the start                  │
l│Only the scoreboard is read: no milter notices this program.                │
 └────────────────────────────────────────────────────────────────────────────┘
                                                60s no room: full
                                                95m slot 3 new process 7, pid 24
q quit  h help  / filter  Tab milter  Space pause                        by slot
",
    );
    // Any key closes it, and means nothing else.
    assert_eq!(press(&mut model, "m"), [Step::Draw]);
    assert!(line_with(&model, "q quit").ends_with("by slot"));
}

#[test]
fn a_terminal_that_is_too_small_says_so_and_any_size_can_be_drawn() {
    let model = showing(running());
    let text = screen(&model, 40, 8).join(" ");
    assert!(
        text.contains("The terminal is too small: 40 x 8, and"),
        "{text}"
    );
    assert!(text.contains("q quits."), "{text}");
    let mut helping = showing(running());
    press(&mut helping, "?");
    for (width, height) in [
        (1, 1),
        (2, 60),
        (59, 24),
        (60, 10),
        (60, 11),
        (61, 15),
        (300, 100),
    ] {
        for model in [&model, &helping] {
            terminal(model, width, height);
        }
    }
}

#[test]
fn a_low_terminal_keeps_the_slots_and_a_large_one_shows_more_of_everything() {
    let model = showing(running());
    let low = screen(&model, 60, 11);
    assert!(
        low[7].starts_with("slot S") && low[8].starts_with("   0 R"),
        "{low:?}"
    );
    assert!(low[10].starts_with("q quit"), "{low:?}");
    let large = screen(&model, 160, 40).join("\n");
    for text in [
        "4ABC             from a@example.org",
        "takes mail",
        "4AAA\u{fffd}[2J, lost 1",
    ] {
        assert!(large.contains(text), "{text}\n{large}");
    }
}

#[test]
fn slots_are_ordered_as_asked_and_scrolled() {
    let mut model = showing(running());
    let order = |model: &Model| -> Vec<u32> { model.rows().iter().map(|row| row.slot).collect() };
    for (key, expected) in [
        ("a", [0, 1, 3, 2]),
        ("r", [3, 0, 1, 2]),
        ("m", [0, 1, 3, 2]),
        ("M", [0, 1, 3, 2]),
    ] {
        press(&mut model, key);
        assert_eq!(order(&model), expected, "{key}");
    }
    press(&mut model, "M");
    assert_eq!(order(&model), [2, 3, 1, 0]);
    assert!(line_with(&model, "q quit").ends_with("by rss, reversed"));

    let many = (0..30).map(|index| slot(index, 100, 0, 0)).collect();
    let mut model = showing(seen(State::Running, Some(board(many))));
    assert!(screen(&model, 80, 24)[8].starts_with("   0"));
    press(&mut model, "↓↓");
    assert!(screen(&model, 80, 24)[8].starts_with("   2"));
    model.act(keys::Action::Bottom);
    let last = screen(&model, 80, 24);
    assert!(
        last[13].starts_with("  29") && last[8].starts_with("  24"),
        "{last:?}"
    );
    // And back at once, not after as many keys as were too many.
    model.act(keys::Action::Top);
    assert!(screen(&model, 80, 24)[8].starts_with("   0"));
}

#[test]
fn a_pause_is_seen_and_another_milter_begins_without_the_rates_of_the_first() {
    let mut model = showing(running());
    press(&mut model, " ");
    assert!(line_with(&model, "policy: ").ends_with("1 of 2  PAUSED"));
    assert_eq!(press(&mut model, " "), [Step::Look]);
    assert_eq!(press(&mut model, "\t"), [Step::Look]);
    assert!(line_with(&model, "2 of 2").starts_with("spam"));
    assert_eq!(model.rates(), None);
}

#[test]
fn rates_are_those_between_two_looks_and_start_anew_with_another_board() {
    let look = |instance, ago: u64, accepted, messages| {
        let mut board = board(vec![slot(0, 1, 0, messages)]);
        board.header.instance = [instance, 0];
        board.global.accepted = accepted;
        board.now_ns = NOW - ago * SECOND;
        seen(State::Running, Some(board))
    };
    let mut model = model();
    let rates = |model: &Model| {
        line_with(model, "per second")
            .split_whitespace()
            .skip(2)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    model.see(look(1, 4, 100, 1_000));
    assert_eq!(rates(&model)[..3], ["-", "-", "-"]);
    model.see(look(1, 2, 110, 1_300));
    assert_eq!(rates(&model)[..3], ["5.0", "150", "150"]);
    // Restarted: its totals are larger, and still there is no rate.
    model.see(look(2, 1, 900, 9_000));
    assert_eq!(rates(&model)[..3], ["-", "-", "-"]);
    model.see(look(2, 0, 903, 9_001));
    assert_eq!(rates(&model)[..3], ["3.0", "1.0", "1.0"]);
}

#[test]
fn no_control_character_of_a_board_reaches_the_terminal() {
    let evil = "\x1b[2J\u{9b}31m\u{7}\r\n\u{85}";
    let mut hostile = busy_board();
    for words in [&mut hostile.global.port, &mut hostile.global.trouble] {
        put_text(words, evil.as_bytes());
    }
    hostile.slots[0] = at(slot(0, u64::MAX, 1, 1), Phase::Unknown(99), 1, evil, evil);
    hostile.slots[1].master.state = 77;
    hostile.slots[2].master.forked_at_ns = u64::MAX;
    hostile.global.accepted = u64::MAX;
    hostile.global.crash_loop = u64::MAX;
    hostile.global.content_timeout_ns = u64::MAX;
    hostile.now_ns = u64::MAX;
    hostile.global.trouble_at_ns = u64::MAX;
    let mut death = Death::zeroed();
    death.slot = u64::MAX;
    put_text(&mut death.queue_id, evil.as_bytes());
    hostile.deaths = vec![death];
    let mut seen = seen(State::Running, Some(hostile));
    let mut event = Event::zeroed();
    event.kind = 99;
    seen.history.events = vec![event];
    let mut second = Second::zeroed();
    second.verdicts = [u64::MAX; 6];
    seen.history.seconds = vec![second; 3];
    let text = picture(&showing(seen), 200, 40);
    assert!(
        !text.chars().any(|c| c.is_control() && c != '\n'),
        "{text:?}"
    );
    // Port, trouble, queue id, doing, queue id of a death: what cannot be shown is seen to be so.
    assert_eq!(text.matches("\u{fffd}[2J").count(), 5, "{text}");
    assert!(text.contains("event 99"), "{text}");
}

#[test]
fn without_colours_and_without_unicode_everything_is_still_there() {
    let appearance = Appearance {
        colours: false,
        unicode: false,
    };
    let mut model = Model::new(appearance, Duration::from_secs(1));
    model.offer(vec!["policy".parse().unwrap()]);
    model.see(running());
    for help in [false, true] {
        if help {
            press(&mut model, "?");
        }
        let terminal = terminal(&model, 120, 30);
        for cell in terminal.backend().buffer().content() {
            assert_eq!((cell.fg, cell.bg), (Color::Reset, Color::Reset));
            // What the board itself holds is shown as it is: U+FFFD in the test's queue id.
            assert!(
                cell.symbol().is_ascii() || cell.symbol() == "\u{fffd}",
                "{}",
                cell.symbol()
            );
        }
    }
}
