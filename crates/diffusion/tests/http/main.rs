//! Hosted models against a real HTTP server: a second process of this very program, whose behaviour is chosen by path.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod answers;
mod budget;
mod requests;
mod retries;
mod server;
mod support;

/// The server's process; the other tests start it.
#[test]
#[ignore = "is the server that the other tests start"]
fn serve() {
    server::serve();
}
