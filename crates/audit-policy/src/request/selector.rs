//! Field and label selectors: whether they can be read decides between list and watch, and a field selector may contain
//! a name.

use crate::validation::is_dns_subdomain;
use kube_yaml::scalar::text_of;

/// The condition of a field selector.
#[derive(Debug, PartialEq)]
pub(super) struct FieldSelector {
    /// The one name that an object must have.
    pub name: Option<Vec<u8>>,
}

/// kubernetes@v1.36.3 staging/src/k8s.io/apimachinery/pkg/fields/selector.go#L345-L449. `None`: it cannot be read.
pub(super) fn fields(selector: &[u8]) -> Option<FieldSelector> {
    let mut terms = terms(selector);
    // Upstream sorts the terms, and the first one with a name wins.
    terms.sort_unstable();
    let mut name = None;
    for term in terms.into_iter().filter(|term| !term.is_empty()) {
        let at = term.iter().position(|b| *b == b'=')?;
        // `!=` begins one byte earlier, `==` ends one byte later.
        let is_not = at > 0 && term[at - 1] == b'!';
        let is_double = !is_not && term.get(at + 1) == Some(&b'=');
        let field = &term[..at - usize::from(is_not)];
        let value = unescape(&term[at + 1 + usize::from(is_double)..])?;
        if !is_not && field == b"metadata.name" {
            name = name.or(Some(value));
        }
    }
    Some(FieldSelector { name })
}

/// Splits at commas that are not escaped.
fn terms(selector: &[u8]) -> Vec<&[u8]> {
    let mut is_escaped = false;
    selector
        .split(|b| {
            let is_end = *b == b',' && !is_escaped;
            is_escaped = *b == b'\\' && !is_escaped;
            is_end
        })
        .collect()
}

fn unescape(value: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut bytes = value.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => out.push(*bytes.next().filter(|b| matches!(b, b'\\' | b',' | b'='))?),
            b',' | b'=' => return None,
            _ => out.push(*byte),
        }
    }
    Some(out)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Token<'a> {
    End,
    Comma,
    Not,
    Open,
    Close,
    /// `=`, `==`, `!=`.
    Equality,
    /// `<`, `>`.
    Order,
    /// `in`, `notin`; a name if no operator is expected.
    Membership,
    Name(&'a [u8]),
}

/// Whether upstream reads a label selector (kubernetes@v1.36.3
/// staging/src/k8s.io/apimachinery/pkg/labels/selector.go#L483-L935).
pub(super) fn is_label_selector(selector: &[u8]) -> bool {
    Parser { tokens: tokens(selector), at: 0 }.requirements().is_some()
}

fn tokens(selector: &[u8]) -> Vec<Token<'_>> {
    let is_special = |b: u8| b"=!(),<>".contains(&b);
    let is_blank = |b: u8| b" \t\r\n".contains(&b);
    // A zero byte ends it.
    let mut rest = selector.split(|b| *b == 0).next().unwrap_or_default();
    let mut found = Vec::new();
    while let Some(first) = rest.first() {
        let (token, width) = match (first, rest.get(1)) {
            (b, _) if is_blank(*b) => {
                rest = &rest[1..];
                continue;
            }
            (b'=' | b'!', Some(b'=')) => (Token::Equality, 2),
            (b'=', _) => (Token::Equality, 1),
            (b'!', _) => (Token::Not, 1),
            (b'<' | b'>', _) => (Token::Order, 1),
            (b',', _) => (Token::Comma, 1),
            (b'(', _) => (Token::Open, 1),
            (b')', _) => (Token::Close, 1),
            _ => {
                let width = rest.iter().take_while(|b| !is_special(**b) && !is_blank(**b)).count();
                let word = &rest[..width];
                (if matches!(word, b"in" | b"notin") { Token::Membership } else { Token::Name(word) }, width)
            }
        };
        found.push(token);
        rest = &rest[width..];
    }
    found.push(Token::End);
    found
}

/// Each step is `None` if the selector cannot be read.
struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        self.tokens.get(self.at).copied().unwrap_or(Token::End)
    }

    fn take(&mut self) -> Token<'a> {
        let token = self.peek();
        self.at += 1;
        token
    }

    /// A name; `in` and `notin` are names too.
    fn name(token: Token<'a>) -> Option<&'a [u8]> {
        match token {
            Token::Name(name) => Some(name),
            Token::Membership => Some(b"in"),
            _ => None,
        }
    }

    fn requirements(&mut self) -> Option<()> {
        if self.peek() == Token::End {
            return Some(());
        }
        loop {
            self.requirement()?;
            match self.take() {
                Token::End => return Some(()),
                Token::Comma => {}
                _ => return None,
            }
        }
    }

    fn requirement(&mut self) -> Option<()> {
        let is_not = self.peek() == Token::Not;
        if is_not {
            self.take();
        }
        let key = Self::name(self.take())?;
        if !is_label_key(key) {
            return None;
        }
        if is_not || matches!(self.peek(), Token::End | Token::Comma) {
            return Some(());
        }
        match self.take() {
            Token::Membership => self.values(),
            operator @ (Token::Equality | Token::Order) => {
                let value = match self.peek() {
                    Token::End | Token::Comma => &b""[..],
                    _ => Self::name(self.take())?,
                };
                let is_order = operator == Token::Order;
                (is_label_value(value) && (!is_order || text_of(value).parse::<i64>().is_ok())).then_some(())
            }
            _ => None,
        }
    }

    /// `(a, b)`; each may be absent.
    fn values(&mut self) -> Option<()> {
        if self.take() != Token::Open {
            return None;
        }
        if self.peek() == Token::Close {
            self.take();
            return Some(());
        }
        loop {
            match self.take() {
                Token::Comma => {}
                token => {
                    let value = Self::name(token)?;
                    if !is_label_value(value) || !matches!(self.peek(), Token::Comma | Token::Close) {
                        return None;
                    }
                }
            }
            if self.peek() == Token::Close {
                self.take();
                return Some(());
            }
        }
    }
}

pub fn is_label_key(key: &[u8]) -> bool {
    let parts: Vec<&[u8]> = key.split(|b| *b == b'/').collect();
    let (prefix, name) = match parts.as_slice() {
        [name] => (None, *name),
        [prefix, name] => (Some(*prefix), *name),
        _ => return false,
    };
    prefix.is_none_or(|prefix| is_dns_subdomain(&text_of(prefix))) && !name.is_empty() && is_label_value(name)
}

pub fn is_label_value(value: &[u8]) -> bool {
    let is_inner = |b: &u8| b.is_ascii_alphanumeric() || b"-_.".contains(b);
    let is_outer = |b: Option<&u8>| b.is_none_or(u8::is_ascii_alphanumeric);
    value.len() <= 63 && value.iter().all(is_inner) && is_outer(value.first()) && is_outer(value.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_from_the_first_term_in_sorted_order() {
        let name = |selector: &str| {
            fields(selector.as_bytes()).map(|fields| fields.name.map(|name| String::from_utf8(name).unwrap()))
        };
        let some = |name: &str| Some(Some(name.to_string()));
        for (selector, want) in [
            ("", Some(None)),
            (",,", Some(None)),
            ("metadata.name=a", some("a")),
            ("metadata.name==a", some("a")),
            ("metadata.name!=a", Some(None)),
            ("metadata.name=b,metadata.name=a", some("a")),
            ("spec.nodeName=n,metadata.name=a", some("a")),
            ("metadata.name=", some("")),
            (r"metadata.name=a\,b\=c\\", some(r"a,b=c\")),
            ("metadata.name =a", Some(None)),
            ("metadata.name=a=b", None),
            ("metadata.name", None),
            (r"metadata.name=a\", None),
            (r"metadata.name=\a", None),
            ("metadata.name===a", None),
            ("a!==b", None),
        ] {
            assert_eq!(name(selector), want, "{selector}");
        }
    }

    #[test]
    fn label_selectors_are_those_of_upstream() {
        for selector in [
            "",
            " ",
            "a",
            "!a",
            "a=",
            "a=b",
            "a==b",
            "a!=b",
            "a in (b,c)",
            "a notin (,b,,)",
            "a in ()",
            "in",
            "in in (in)",
            "a>1",
            "a<1",
            "a,b",
            "x.y/a = b , c",
            "a=b\0)(",
        ] {
            assert!(is_label_selector(selector.as_bytes()), "{selector}");
        }
        for selector in [
            "=",
            "a,",
            ",a",
            "a b",
            "a=b c",
            "a in b",
            "a in (b",
            "a in (b c)",
            "a>x",
            "a>",
            "-a",
            "a=-",
            "a/b/c",
            "/a",
            "X/a=b",
            "!",
            "!a=b",
            "a=(b)",
            "a=>b",
        ] {
            assert!(!is_label_selector(selector.as_bytes()), "{selector}");
        }
        let long = "a".repeat(63);
        assert!(is_label_selector(format!("{long}={long}").as_bytes()));
        assert!(!is_label_selector(format!("{long}a").as_bytes()));
        assert!(!is_label_selector(format!("a={long}a").as_bytes()));
    }
}
