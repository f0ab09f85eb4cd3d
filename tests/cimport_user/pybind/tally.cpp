// A pybind11 extension: a C++ class with a lock of its own, used without the GIL.
#include <pybind11/pybind11.h>

#include <fastsync/fastsync.h>

#include <map>
#include <mutex>

namespace py = pybind11;

class Tally {
  public:
    // Count `key` so often; other threads run Python meanwhile.
    void add(long key, long times) {
        py::gil_scoped_release released;
        for (long i = 0; i < times; i++) {
            std::lock_guard<fastsync::mutex> held(guard_);
            counts_[key] += 1;
            total_ += 1;
        }
        fs_condvar_notify_all(&grown_);
    }

    // Wait until so much was counted, or for so many seconds: whether it was.
    bool wait_for(long total, double seconds) {
        py::gil_scoped_release released;
        int64_t deadline = fs_deadline_after(static_cast<int64_t>(seconds * 1e9));
        std::lock_guard<fastsync::mutex> held(guard_);
        while (total_ < total) {
            if (fs_condvar_wait(&grown_, guard_.word(), deadline, FS_PLAIN) == FS_CONDVAR_TIMEOUT) {
                return total_ >= total;
            }
        }
        return true;
    }

    long count(long key) {
        std::lock_guard<fastsync::mutex> held(guard_); // a wait for it detaches
        return counts_[key];
    }

  private:
    fastsync::mutex guard_;
    fs_condvar grown_{};
    std::map<long, long> counts_;
    long total_ = 0;
};

PYBIND11_MODULE(fs_user_pybind, m, py::mod_gil_not_used()) {
    if (fastsync_import() < 0) {
        throw py::error_already_set();
    }
    py::class_<Tally>(m, "Tally")
        .def(py::init<>())
        .def("add", &Tally::add)
        .def("wait_for", &Tally::wait_for)
        .def("count", &Tally::count);
}
