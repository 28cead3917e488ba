//! Facts about the host that several rooms ask for, each looked up once.
