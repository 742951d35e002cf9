//! The request of a probe: one GET without credentials and without a body. Nothing of the answer is used but its status
//! code.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::revision::Url;

/// `HTTP/1.1 200` and one character more.
const STATUS_LINE: usize = 13;

/// Makes the request, and returns the status code of the answer. It reads no more than the code: the receiver's own
/// text must not get anywhere. The caller limits the time.
pub(super) async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), url: &Url, path: &str) -> io::Result<u16> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: audit-operator\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        url.authority()
    );
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut begin = [0; STATUS_LINE];
    stream.read_exact(&mut begin).await?;
    code(begin).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not HTTP"))
}

/// The code at the beginning of an answer in HTTP/1.0 or 1.1 (RFC 9112, section 4).
fn code(begin: [u8; STATUS_LINE]) -> Option<u16> {
    let rest = begin.strip_prefix(b"HTTP/1.")?;
    let [b'0'..=b'9', b' ', code @ .., b' ' | b'\r' | b'\n'] = rest else { return None };
    let is_code = code.len() == 3 && code.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(code).ok().filter(|_| is_code)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_that_of_a_status_line() {
        for (begin, want) in [
            (b"HTTP/1.1 200 ", Some(200)),
            (b"HTTP/1.0 405\r", Some(405)),
            (b"HTTP/1.1 404\n", Some(404)),
            (b"HTTP/1.1 2000", None),
            (b"HTTP/1.1  200", None),
            (b"HTTP/1.1 +20 ", None),
            (b"HTTP/2.0 200 ", None),
            (b"220 mail.exam", None),
            (&[0; STATUS_LINE], None),
        ] {
            assert_eq!(code(*begin), want, "{}", String::from_utf8_lossy(begin));
        }
    }

    #[tokio::test]
    async fn the_request_has_no_credentials_and_no_body() {
        let (mut client, mut server) = tokio::io::duplex(4096);
        let url = Url::parse("http://[fd00::1]:9765/k8s-audit").unwrap();
        server.write_all(b"HTTP/1.1 405 Method Not Allowed\r\n").await.unwrap();
        assert_eq!(ask(&mut client, &url, "/healthz").await.unwrap(), 405);
        drop(client);
        let mut request = String::new();
        server.read_to_string(&mut request).await.unwrap();
        assert_eq!(
            request,
            "GET /healthz HTTP/1.1\r\nHost: [fd00::1]:9765\r\nUser-Agent: audit-operator\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        );
    }
}
