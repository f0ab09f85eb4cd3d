/* macOS: the POSIX backend.  Not tested: no such machine was at hand.
 * (os_sync_wait_on_address, public since macOS 14.4, is the next step.) */
#ifndef FASTSYNC_WAIT_DARWIN_H
#define FASTSYNC_WAIT_DARWIN_H

#include "wait_pthread.h"

#endif
