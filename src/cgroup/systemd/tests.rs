//! What is asked of systemd, in pieces.
