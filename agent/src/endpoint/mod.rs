//! The servers that data goes to: HTTP connections, authentication, what each answer means, when to try
//! again. It must not know collectors or the WAL.
