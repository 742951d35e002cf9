//! A stand-in for Logstash, which no package registry has: the http input, `split`, and the output to OpenSearch as
//! `examples/collectors/logstash.conf` configures them, written from Logstash's documentation.
//!
//! The http input takes any method and path, makes one event of a JSON body, and answers `ok`. `split` makes one event
//! of each item. The output sends them by `_bulk`, and goes on after an item that OpenSearch refuses.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

use serde_json::{Value, json};

use crate::http;

pub struct LogstashStandIn {
    pub port: u16,
    /// Status and reason of every item that OpenSearch refused.
    serving: JoinHandle<Vec<String>>,
}

impl LogstashStandIn {
    pub fn start(opensearch: u16, index: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let index = index.to_string();
        let serving = std::thread::spawn(move || {
            let mut refused = Vec::new();
            for stream in listener.incoming() {
                let Some((mut stream, body)) = body(stream.unwrap()) else { break };
                refused.extend(bulk(opensearch, &index, &body));
                stream
                    .write_all(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok")
                    .unwrap();
            }
            refused
        });
        Self { port, serving }
    }

    /// Ends it; what OpenSearch refused.
    pub fn end(self) -> Vec<String> {
        drop(TcpStream::connect(("127.0.0.1", self.port)).unwrap());
        self.serving.join().unwrap()
    }
}

/// The JSON body of a request; `None` for a connection without one.
fn body(stream: TcpStream) -> Option<(TcpStream, Value)> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap() == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim_end().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    Some((reader.into_inner(), serde_json::from_slice(&body).unwrap()))
}

fn bulk(opensearch: u16, index: &str, list: &Value) -> Vec<String> {
    let mut lines = String::new();
    for event in list["items"].as_array().unwrap() {
        let id = format!("{}-{}", event["auditID"].as_str().unwrap(), event["stage"].as_str().unwrap());
        lines += &format!("{}\n{event}\n", json!({"create": {"_id": id}}));
    }
    let answer = http::post(opensearch, &format!("/{index}/_bulk"), "application/x-ndjson", &lines);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer: Value = serde_json::from_str(&answer.body).unwrap();
    let items = answer["items"].as_array().unwrap().iter().map(|item| &item["create"]);
    items
        .filter(|item| item.get("error").is_some())
        .map(|item| format!("{} {}", item["status"], item["error"]["reason"]))
        .collect()
}
