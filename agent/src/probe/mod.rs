//! The kernel probes: load the BPF object, attach its programs to tracepoints, read their maps once a
//! round. It must not know the WAL, the configuration file or where samples go.
