//! HTTP conversations made up by proptest, with what must be seen of them.
//!
//! Each exchange has a path of its own and a status of its own, so a wrong pairing shows.

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use seismo::model::connection::Direction;

#[derive(Clone, Debug)]
pub enum Body {
    None,
    Length(usize),
    /// Sizes of the chunks, and whether there are extensions and trailers.
    Chunks(Vec<usize>, bool),
}

#[derive(Clone, Debug)]
pub struct Ask {
    pub method: &'static str,
    pub request: Body,
    pub response: Body,
    pub interim: bool,
}

/// Who sends when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Serial,
    /// So many requests, then all their answers.
    Batches(usize),
    /// One request with its answer, then so many requests open at any time.
    Window(usize),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    pub path: String,
    pub status: String,
    pub request_body: u64,
    pub response_body: u64,
}

/// Everything that moves, in order: which way the client's bytes go is the server's receive.
pub struct Conversation {
    pub moves: Vec<(Direction, Vec<u8>)>,
    pub expected: Vec<Expected>,
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        Just(Body::None),
        (0usize..2000).prop_map(Body::Length),
        (vec(1usize..600, 0..4), any::<bool>()).prop_map(|(sizes, extras)| Body::Chunks(sizes, extras)),
    ]
}

pub fn ask() -> impl Strategy<Value = Ask> {
    let method = prop_oneof![4 => Just("GET"), 2 => Just("POST"), 1 => Just("HEAD"), 1 => Just("PROPFIND")];
    (method, body(), body(), any::<bool>()).prop_map(|(method, request, response, interim)| Ask {
        method,
        request,
        response,
        interim,
    })
}

pub fn order() -> impl Strategy<Value = Order> {
    prop_oneof![Just(Order::Serial), (2usize..6).prop_map(Order::Batches), (2usize..5).prop_map(Order::Window)]
}

impl Conversation {
    /// `tempting`: bodies that look like messages, for whoever looks for one in them.
    pub fn new(asks: &[Ask], order: Order, tempting: bool) -> Self {
        let mut expected = Vec::new();
        let mut messages = Vec::new();
        for (number, ask) in asks.iter().enumerate() {
            let path = format!("/word/{number}");
            // Neither 204 nor 304, which have no body: a status of its own for each.
            let status = 210 + number + usize::from(number >= 94);
            let mut request = format!("{} {path}?q=secret HTTP/1.1\r\nHost: shop.example\r\n", ask.method).into_bytes();
            let request_body = add_body(&mut request, &ask.request, true, tempting);
            let mut response = Vec::new();
            if ask.interim {
                response.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
            }
            response.extend_from_slice(format!("HTTP/1.1 {status} Fine\r\nServer: test\r\n").as_bytes());
            let response_body = add_body(&mut response, &ask.response, ask.method != "HEAD", tempting);
            messages.push((request, response));
            expected.push(Expected { path, status: status.to_string(), request_body, response_body });
        }
        Self { moves: interleave(messages, order), expected }
    }
}

pub fn interleave(messages: Vec<(Vec<u8>, Vec<u8>)>, order: Order) -> Vec<(Direction, Vec<u8>)> {
    let mut moves = Vec::new();
    match order {
        Order::Serial => {
            for (request, response) in messages {
                moves.push((Direction::Receive, request));
                moves.push((Direction::Send, response));
            }
        }
        Order::Batches(size) => {
            for batch in messages.chunks(size) {
                moves.push((Direction::Receive, batch.iter().flat_map(|(request, _)| request.clone()).collect()));
                moves.push((Direction::Send, batch.iter().flat_map(|(_, response)| response.clone()).collect()));
            }
        }
        Order::Window(size) => {
            let mut answers = std::collections::VecDeque::new();
            for (request, response) in messages {
                moves.push((Direction::Receive, request));
                answers.push_back(response);
                if answers.len() == size || moves.len() == 1 {
                    moves.extend(answers.pop_front().map(|response| (Direction::Send, response)));
                }
            }
            moves.extend(answers.into_iter().map(|response| (Direction::Send, response)));
        }
    }
    moves
}

/// Adds the end of the head and the body; says how long the body is.
fn add_body(message: &mut Vec<u8>, body: &Body, sent: bool, tempting: bool) -> u64 {
    let mut contents = Vec::new();
    let mut size = 0;
    match body {
        Body::None => message.extend_from_slice(b"Content-Length: 0\r\n\r\n"),
        Body::Length(length) => {
            message.extend_from_slice(format!("Content-Length: {length}\r\n\r\n").as_bytes());
            contents = filling(*length, tempting);
            size = *length;
        }
        Body::Chunks(sizes, extras) => {
            message.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            for chunk in sizes {
                contents.extend_from_slice(format!("{chunk:x}{}\r\n", if *extras { ";a=b" } else { "" }).as_bytes());
                contents.extend_from_slice(&filling(*chunk, tempting));
                contents.extend_from_slice(b"\r\n");
                size += chunk;
            }
            contents.extend_from_slice(if *extras { b"0\r\nX-Sum: 1\r\n\r\n" } else { b"0\r\n\r\n" });
        }
    }
    if !sent {
        return 0;
    }
    message.extend_from_slice(&contents);
    size as u64
}

fn filling(length: usize, tempting: bool) -> Vec<u8> {
    let text: &[u8] = if tempting { b"GET /wrong HTTP/1.1\r\n\r\nHTTP/1.1 599 Wrong\r\n\r\n" } else { b"word\r\n\r\n" };
    text.iter().copied().cycle().take(length).collect()
}
