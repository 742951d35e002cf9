//! The part of a user's file that is shown beside a message.

/// The characters around a column, at most `WIDTH`, and the position of the column in them. Tabs and control characters
/// take one column.
pub(super) fn excerpt(line: &str, column: usize) -> (String, usize) {
    const WIDTH: usize = 100;
    let start = if column < WIDTH { 0 } else { column - WIDTH / 2 };
    let shown: String = line.chars().skip(start).take(WIDTH).collect();
    (visible(&shown), column - start)
}

/// Replaces everything that a terminal could take for a command.
pub(super) fn visible(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c == '\t' {
                ' '
            } else if c.is_control() {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_line_a_part_is_shown() {
        let line = format!("{}x{}", "a".repeat(500), "b".repeat(500));
        let (shown, caret) = excerpt(&line, 500);
        assert_eq!((shown.chars().count(), shown.chars().nth(caret)), (100, Some('x')));
    }
}
