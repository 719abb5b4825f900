//! Colours and characters: what the terminal's owner asked for (`NO_COLOR`, <https://no-color.org>) and what its locale can show.
//! Without colours nothing is lost: what matters is also bold, reversed or marked in the text.
#![forbid(unsafe_code)]

use ratatui::style::{Color, Modifier, Style};

use crate::control::status::State;

/// How to draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Appearance {
    pub(super) colours: bool,
    /// Block characters for bars.
    pub(super) unicode: bool,
}

/// Heights of a bar, from nothing to full.
const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const ASCII: [char; 9] = [' ', '.', ':', '-', '=', '+', '*', '#', '@'];

impl Appearance {
    /// As the environment says.
    pub(super) fn of(variable: impl Fn(&str) -> Option<String>) -> Appearance {
        let set = |name: &str| variable(name).filter(|text| !text.is_empty());
        // POSIX: the first one that is set counts.
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set);
        let utf8 = |locale: &String| {
            let locale = locale.to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        };
        Appearance {
            colours: set("NO_COLOR").is_none(),
            unicode: locale.as_ref().is_some_and(utf8),
        }
    }

    /// Heights of a bar, from nothing to full.
    pub(super) fn heights(self) -> [char; 9] {
        if self.unicode { BLOCKS } else { ASCII }
    }

    /// Parts of a bar: up to the median, to the 90th and to the 99th of a hundred.
    pub(super) fn parts(self) -> [char; 3] {
        if self.unicode {
            ['█', '▓', '░']
        } else {
            ['#', '=', '-']
        }
    }

    fn coloured(self, colour: Color, otherwise: Modifier) -> Style {
        if self.colours {
            Style::new().fg(colour)
        } else {
            Style::new().add_modifier(otherwise)
        }
    }

    /// As it should be.
    pub(super) fn good(self) -> Style {
        self.coloured(Color::Green, Modifier::empty())
    }

    /// To be watched.
    pub(super) fn warning(self) -> Style {
        self.coloured(Color::Yellow, Modifier::BOLD)
    }

    /// Wrong.
    pub(super) fn bad(self) -> Style {
        self.coloured(Color::Red, Modifier::REVERSED)
            .add_modifier(Modifier::BOLD)
    }

    /// Names of things.
    pub(super) fn label(self) -> Style {
        self.coloured(Color::Cyan, Modifier::empty())
    }

    /// What is not looked at first.
    pub(super) fn quiet(self) -> Style {
        self.coloured(Color::DarkGray, Modifier::DIM)
    }

    /// Headings.
    pub(super) fn heading(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// Of a milter in this state.
    pub(super) fn state(self, state: State) -> Style {
        match state {
            State::Running => self.good(),
            State::Starting | State::Retiring | State::Stopped | State::NotRunning => {
                self.warning()
            }
            State::Hung | State::Dead | State::Stale | State::Unreadable => self.bad(),
        }
        .add_modifier(Modifier::BOLD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_color_counts_when_it_is_not_empty_and_the_first_locale_that_is_set_decides() {
        let of = |pairs: &'static [(&str, &str)]| {
            Appearance::of(|name| {
                let found = pairs.iter().find(|(key, _)| *key == name)?;
                Some(found.1.to_owned())
            })
        };
        assert!(of(&[]).colours && !of(&[]).unicode);
        assert!(of(&[("NO_COLOR", "")]).colours);
        assert!(!of(&[("NO_COLOR", "1")]).colours);
        assert!(of(&[("LANG", "de_DE.UTF-8")]).unicode);
        assert!(of(&[("LC_ALL", ""), ("LANG", "C.utf8")]).unicode);
        assert!(!of(&[("LC_ALL", "C"), ("LANG", "C.UTF-8")]).unicode);
    }

    #[test]
    fn without_colours_no_style_has_one() {
        let plain = Appearance {
            colours: false,
            unicode: true,
        };
        let mut styles = vec![
            plain.good(),
            plain.warning(),
            plain.bad(),
            plain.label(),
            plain.quiet(),
            plain.heading(),
        ];
        styles.extend(State::ALL.iter().map(|state| plain.state(*state)));
        for style in styles {
            assert_eq!((style.fg, style.bg), (None, None));
        }
    }
}
