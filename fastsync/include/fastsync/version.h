/* Stamped by setup.py with the version of pyproject.toml. */
#ifndef FASTSYNC_VERSION_H
#define FASTSYNC_VERSION_H

#define FASTSYNC_VERSION "0.1.0"

/* Of the function table in fastsync.h.  A larger one differs in what it had; a
 * table that only grew keeps the number and gets a larger size. */
#define FASTSYNC_ABI 1

#endif
