//! Views and emitters of protocol headers.
