/* Stamped by setup.py with the version of pyproject.toml. */
#ifndef FASTSYNC_VERSION_H
#define FASTSYNC_VERSION_H

#define FASTSYNC_VERSION "0.1.0"

/* Versions of one series share their C API: it may grow, but what it had stays. */
#define FASTSYNC_SERIES "0.1."

#endif
