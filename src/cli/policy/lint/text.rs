//! Findings as compilers show them: where, the line, a caret below it, and what else it is about.

use crate::cli::excerpt::{excerpt, visible};
use audit_policy::{Finding, Place, Severity};

/// How a finding is shown.
pub(super) struct View<'a> {
    pub file: &'a str,
    pub lines: &'a [String],
    pub is_coloured: bool,
}

impl View<'_> {
    pub(super) fn show(&self, out: &mut String, finding: &Finding) {
        let colour = match finding.severity {
            Severity::Error => "31",
            Severity::Warning => "33",
            Severity::Info => "36",
        };
        let head = format!("{}[{}]", finding.severity.as_str(), finding.id);
        self.passage(out, &head, colour, &finding.message, finding.place);
        for note in &finding.notes {
            self.passage(out, "note", "32", &note.message, note.place);
        }
        if let Some(help) = &finding.help {
            let margin = " ".repeat(finding.place.line.to_string().len());
            out.push_str(&format!("{margin} {} help: {}\n", self.paint("=", "34"), visible(help)));
        }
        out.push('\n');
    }

    fn passage(&self, out: &mut String, head: &str, colour: &str, message: &str, place: Place) {
        let mut add = |line: String| {
            out.push_str(&line);
            out.push('\n');
        };
        add(format!("{}: {}", self.paint(head, colour), visible(message)));
        let number = place.line.to_string();
        let margin = " ".repeat(number.len());
        add(format!("{margin}{} {}:{}:{}", self.paint("-->", "34"), self.file, place.line, place.column));
        if let Some(line) = self.lines.get(place.line as usize - 1).filter(|line| !line.is_empty()) {
            let (shown, caret) = excerpt(line, place.column as usize - 1);
            let bar = self.paint("|", "34");
            add(format!("{margin} {bar}"));
            add(format!("{} {bar} {shown}", self.paint(&number, "34")));
            add(format!("{margin} {bar} {}{}", " ".repeat(caret), self.paint("^", colour)));
        }
    }

    fn paint(&self, text: &str, colour: &str) -> String {
        if self.is_coloured { format!("\u{1b}[1;{colour}m{text}\u{1b}[0m") } else { text.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lines_of;
    use super::*;
    use audit_policy::Note;

    #[test]
    fn a_finding_is_shown_with_its_line() {
        let text = b"apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: None\n\tverb: x\n";
        let place = Place { line: 5, column: 2 };
        let finding = Finding {
            id: "unknown-field",
            severity: Severity::Warning,
            stops_start: false,
            message: "unknown \u{1b}[31mfield".into(),
            place,
            path: "rules[0].verb".into(),
            help: Some("remove it".into()),
            notes: vec![Note { message: "see this".into(), place: Place { line: 4, column: 3 }, path: String::new() }],
            edit: None,
        };
        let mut out = String::new();
        View { file: "p.yaml", lines: &lines_of(text), is_coloured: false }.show(&mut out, &finding);
        let want = "warning[unknown-field]: unknown \u{fffd}[31mfield\n --> p.yaml:5:2\n  |\n5 |  verb: x\n  |  ^\n\
                    note: see this\n --> p.yaml:4:3\n  |\n4 | - level: None\n  |   ^\n  = help: remove it\n\n";
        assert_eq!(out, want);
    }
}
