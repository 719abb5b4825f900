//! The nearest known name for one that is not known: errors offer it.
#![forbid(unsafe_code)]

/// The name nearest to `unknown`, if one is near enough to be what was meant.
pub(crate) fn nearest<'a>(
    unknown: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let folded = unknown.to_lowercase();
    // A third of the letters may be wrong, one at least; a long unknown name is cut so that the work stays small.
    let letters: Vec<char> = folded.chars().take(64).collect();
    let allowed = (letters.len() / 3).max(1);
    names
        .into_iter()
        .map(|name| {
            (
                distance(&letters, &name.to_lowercase().chars().collect::<Vec<_>>()),
                name,
            )
        })
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// `; did you mean NAME?`, or nothing.
pub(crate) fn did_you_mean<'a>(
    unknown: &str,
    prefix: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> String {
    nearest(unknown, names).map_or_else(String::new, |name| {
        format!("; did you mean {prefix}{name}?")
    })
}

/// Edits (insert, delete, replace) from one name to the other.
fn distance(left: &[char], right: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut diagonal = i;
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
        for (j, b) in right.iter().enumerate() {
            let replace = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_offered_and_a_far_one_is_not() {
        assert_eq!(nearest("heloo", ["helo", "header"]), Some("helo"));
        assert_eq!(nearest("REJCT", ["ACCEPT", "REJECT"]), Some("REJECT"));
        assert_eq!(nearest("banana", ["helo", "header"]), None);
    }
}
