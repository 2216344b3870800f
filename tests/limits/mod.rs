//! Every limit at its bound and over it: rates of a session, messages, connections of an address;
//! and that the page which documents them says what is so. What others notice of one who goes too
//! far is tested in `isolation`.

mod addresses;
mod documented;
mod messages;
mod rates;
mod rooms;
