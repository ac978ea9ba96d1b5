//! The links of the new network namespace, beside the device itself.

use std::io;

use rtnetlink::LinkUnspec;

/// Index of `lo` in every network namespace.
const LOOPBACK: u32 = 1;

/// Brings `lo` up, which gives it its addresses.
pub(super) async fn bring_up_loopback() -> io::Result<()> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    let message = LinkUnspec::new_with_index(LOOPBACK).up().build();
    handle.link().set(message).execute().await.map_err(into_io)
}

pub(super) fn into_io(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}
