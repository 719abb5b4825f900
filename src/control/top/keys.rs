//! Which key does what: one table for the help, the manual's test and the loop.
#![forbid(unsafe_code)]

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::rows::Sort;

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Quit,
    /// Close what is open: help, the line of the filter; else quit.
    Escape,
    Suspend,
    Help,
    Pause,
    NextMilter,
    PreviousMilter,
    Sort(Sort),
    /// Rows, down when positive.
    Scroll(isize),
    Top,
    Bottom,
    EditFilter,
    Type(char),
    Erase,
    EraseAll,
    Accept,
}

/// Where the keys go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    /// To the view.
    #[default]
    View,
    /// Into the filter.
    Filter,
    /// To the help.
    Help,
}

/// Rows of a page up or down.
const PAGE: isize = 10;

/// For people: keys and what they do.
pub const KEYS: &[(&str, &str)] = &[
    ("q", "quit; Esc and Ctrl-C too"),
    ("Tab", "next milter; so does Right, and Left goes back"),
    ("Down", "scroll the slots; Up, PgDn, PgUp, Home and End too"),
    ("s", "order by slot"),
    ("a", "order by age"),
    ("r", "order by requests"),
    ("m", "order by messages"),
    (
        "M",
        "order by memory; any of these again turns the order round",
    ),
    (
        "/",
        "filter over queue id, doing, phase, state; Enter keeps, Esc clears",
    ),
    ("Space", "pause, and go on"),
    ("h", "this help; ? too"),
];

/// What a key means here; `None`: nothing.
pub(super) fn action(key: &KeyEvent, mode: Mode) -> Option<Action> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('c') if control => return Some(Action::Quit),
        KeyCode::Char('z') if control => return Some(Action::Suspend),
        KeyCode::Char('u') if control && mode == Mode::Filter => return Some(Action::EraseAll),
        KeyCode::Char(_) if control => return None,
        KeyCode::Esc => return Some(Action::Escape),
        _ => {}
    }
    match mode {
        Mode::View => view(key.code),
        Mode::Filter => match key.code {
            KeyCode::Char(c) => Some(Action::Type(c)),
            KeyCode::Backspace => Some(Action::Erase),
            KeyCode::Enter => Some(Action::Accept),
            _ => None,
        },
        Mode::Help => match key.code {
            KeyCode::Char('q') => Some(Action::Quit),
            _ => Some(Action::Help),
        },
    }
}

fn view(code: KeyCode) -> Option<Action> {
    Some(match code {
        KeyCode::Char('q') => Action::Quit,
        KeyCode::Char('?' | 'h') => Action::Help,
        KeyCode::Char(' ') => Action::Pause,
        KeyCode::Tab | KeyCode::Right => Action::NextMilter,
        KeyCode::BackTab | KeyCode::Left => Action::PreviousMilter,
        KeyCode::Char('s') => Action::Sort(Sort::Slot),
        KeyCode::Char('a') => Action::Sort(Sort::Age),
        KeyCode::Char('r') => Action::Sort(Sort::Requests),
        KeyCode::Char('m') => Action::Sort(Sort::Messages),
        KeyCode::Char('M') => Action::Sort(Sort::Memory),
        KeyCode::Char('/') => Action::EditFilter,
        KeyCode::Down => Action::Scroll(1),
        KeyCode::Up => Action::Scroll(-1),
        KeyCode::PageDown => Action::Scroll(PAGE),
        KeyCode::PageUp => Action::Scroll(-PAGE),
        KeyCode::Home => Action::Top,
        KeyCode::End => Action::Bottom,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_key_of_the_table_does_something() {
        for (name, _) in KEYS {
            let code = match *name {
                "Tab" => KeyCode::Tab,
                "Down" => KeyCode::Down,
                "Space" => KeyCode::Char(' '),
                letter => KeyCode::Char(letter.chars().next().unwrap()),
            };
            let key = KeyEvent::new(code, KeyModifiers::NONE);
            assert!(action(&key, Mode::View).is_some(), "{name}");
        }
    }

    #[test]
    fn letters_go_into_the_filter_while_it_is_open_and_ctrl_c_always_quits() {
        let press = |code, modifiers| KeyEvent::new(code, modifiers);
        let q = press(KeyCode::Char('q'), KeyModifiers::NONE);
        assert_eq!(action(&q, Mode::Filter), Some(Action::Type('q')));
        assert_eq!(action(&q, Mode::Help), Some(Action::Quit));
        let c = press(KeyCode::Char('c'), KeyModifiers::CONTROL);
        for mode in [Mode::View, Mode::Filter, Mode::Help] {
            assert_eq!(action(&c, mode), Some(Action::Quit));
        }
        let other = press(KeyCode::Char('q'), KeyModifiers::CONTROL);
        assert_eq!(action(&other, Mode::View), None);
    }
}
