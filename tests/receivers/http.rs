//! Just enough HTTP to talk to a receiver on loopback.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use crate::LIMIT;

pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// One request on a connection of its own. `None`: nobody listens, or the connection ended before an answer.
pub fn request(method: &str, port: u16, path: &str, content_type: &str, body: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let content_type =
        if content_type.is_empty() { String::new() } else { format!("Content-Type: {content_type}\r\n") };
    // An answer to HTTP/1.0 is not chunked.
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n{content_type}Connection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    // A receiver may answer before it has read everything.
    _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), None);
    while !head.ends_with("\r\n\r\n") {
        let begin = head.len();
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
        if let Some((name, value)) = head[begin..].split_once(": ")
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim_end().parse().ok();
        }
    }
    // OpenSearch leaves the connection open all the same.
    let mut body = Vec::new();
    reader.take(length.unwrap_or(u64::MAX)).read_to_end(&mut body).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
}

pub fn get(port: u16, path: &str) -> Option<Answer> {
    request("GET", port, path, "", "")
}

/// As kube-apiserver's webhook posts.
pub fn post_json(port: u16, path: &str, body: &str) -> Answer {
    post(port, path, "application/json", body)
}

pub fn post(port: u16, path: &str, content_type: &str, body: &str) -> Answer {
    request("POST", port, path, content_type, body).unwrap_or_else(|| panic!("no answer from port {port}"))
}
