/* Stamped by tools/release.py with the version of pyproject.toml. */
#ifndef FASTSYNC_VERSION_H
#define FASTSYNC_VERSION_H

#define FASTSYNC_VERSION "0.2.0"

/* The attribute of the package by which it refuses what was compiled for another one. */
#define FASTSYNC_MARKER "_compiled_for_0_2_0"

#endif
