//! What all of it does together, on trees of our own and on the kernel's.
