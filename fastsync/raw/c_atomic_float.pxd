# Extern declarations of include/fastsync/atomic_float.h; no logic.
#
# Named and ordered as in c_atomic_order.pxd.
from libc.stdint cimport uint32_t, uint64_t

from fastsync.raw.c_atomic cimport fs_atomic_u8, fs_atomic_u32, fs_atomic_u64

ctypedef fs_atomic_u8 fs_atomic_bool   # a byte that is 0 or 1
ctypedef fs_atomic_u32 fs_atomic_f32   # the bits
ctypedef fs_atomic_u64 fs_atomic_f64


cdef extern from "fastsync/atomic_float.h" nogil:
    bint fs_bool_load(const fs_atomic_bool*) noexcept
    bint fs_bool_load_order(const fs_atomic_bool*, int order) noexcept
    void fs_bool_store(fs_atomic_bool*, bint) noexcept
    void fs_bool_store_order(fs_atomic_bool*, bint, int order) noexcept
    bint fs_bool_cas(fs_atomic_bool*, bint* expected, bint) noexcept
    bint fs_bool_cas_order(fs_atomic_bool*, bint* expected, bint, int success, int failure) noexcept
    bint fs_bool_cas_weak(fs_atomic_bool*, bint* expected, bint) noexcept
    bint fs_bool_cas_weak_order(fs_atomic_bool*, bint* expected, bint, int success, int failure) noexcept
    bint fs_bool_exchange(fs_atomic_bool*, bint) noexcept
    bint fs_bool_exchange_order(fs_atomic_bool*, bint, int order) noexcept
    bint fs_bool_fetch_and(fs_atomic_bool*, bint) noexcept
    bint fs_bool_fetch_and_order(fs_atomic_bool*, bint, int order) noexcept
    bint fs_bool_fetch_or(fs_atomic_bool*, bint) noexcept
    bint fs_bool_fetch_or_order(fs_atomic_bool*, bint, int order) noexcept
    bint fs_bool_fetch_xor(fs_atomic_bool*, bint) noexcept
    bint fs_bool_fetch_xor_order(fs_atomic_bool*, bint, int order) noexcept
    bint fs_bool_fetch_nand(fs_atomic_bool*, bint) noexcept
    bint fs_bool_fetch_nand_order(fs_atomic_bool*, bint, int order) noexcept
    bint fs_bool_fetch_not(fs_atomic_bool*) noexcept
    bint fs_bool_fetch_not_order(fs_atomic_bool*, int order) noexcept

    ctypedef enum fs_fold:  # what a float's read-modify-write does
        FS_FOLD_ADD
        FS_FOLD_SUB
        FS_FOLD_MAX
        FS_FOLD_MIN

    double fold_f64 "fs_fold_f64"(double old, double, fs_fold) noexcept
    uint64_t f64_bits "fs_f64_bits"(double) noexcept
    double f64_from_bits "fs_f64_from_bits"(uint64_t) noexcept
    double fs_f64_load(const fs_atomic_f64*) noexcept
    double fs_f64_load_order(const fs_atomic_f64*, int order) noexcept
    void fs_f64_store(fs_atomic_f64*, double) noexcept
    void fs_f64_store_order(fs_atomic_f64*, double, int order) noexcept
    # These compare bits: NaN equals the same NaN, 0.0 is not -0.0.
    bint fs_f64_cas(fs_atomic_f64*, double* expected, double) noexcept
    bint fs_f64_cas_order(fs_atomic_f64*, double* expected, double, int success, int failure) noexcept
    bint fs_f64_cas_weak(fs_atomic_f64*, double* expected, double) noexcept
    bint fs_f64_cas_weak_order(fs_atomic_f64*, double* expected, double, int success, int failure) noexcept
    double fs_f64_fold_order(fs_atomic_f64*, double, fs_fold, int order) noexcept
    double fs_f64_exchange(fs_atomic_f64*, double) noexcept
    double fs_f64_exchange_order(fs_atomic_f64*, double, int order) noexcept
    double fs_f64_fetch_add(fs_atomic_f64*, double) noexcept
    double fs_f64_fetch_add_order(fs_atomic_f64*, double, int order) noexcept
    double fs_f64_fetch_sub(fs_atomic_f64*, double) noexcept
    double fs_f64_fetch_sub_order(fs_atomic_f64*, double, int order) noexcept
    double fs_f64_fetch_max(fs_atomic_f64*, double) noexcept
    double fs_f64_fetch_max_order(fs_atomic_f64*, double, int order) noexcept
    double fs_f64_fetch_min(fs_atomic_f64*, double) noexcept
    double fs_f64_fetch_min_order(fs_atomic_f64*, double, int order) noexcept

    float fold_f32 "fs_fold_f32"(float old, float, fs_fold) noexcept
    uint32_t f32_bits "fs_f32_bits"(float) noexcept
    float f32_from_bits "fs_f32_from_bits"(uint32_t) noexcept
    # A float's bits as a double and back: exact, signalling NaNs included.
    double f32_widen "fs_f32_widen"(uint32_t) noexcept
    uint32_t f32_narrow "fs_f32_narrow"(double) noexcept
    bint f32_overflows "fs_f32_overflows"(double) noexcept
    float fs_f32_load(const fs_atomic_f32*) noexcept
    float fs_f32_load_order(const fs_atomic_f32*, int order) noexcept
    void fs_f32_store(fs_atomic_f32*, float) noexcept
    void fs_f32_store_order(fs_atomic_f32*, float, int order) noexcept
    # These compare bits: NaN equals the same NaN, 0.0 is not -0.0.
    bint fs_f32_cas(fs_atomic_f32*, float* expected, float) noexcept
    bint fs_f32_cas_order(fs_atomic_f32*, float* expected, float, int success, int failure) noexcept
    bint fs_f32_cas_weak(fs_atomic_f32*, float* expected, float) noexcept
    bint fs_f32_cas_weak_order(fs_atomic_f32*, float* expected, float, int success, int failure) noexcept
    float fs_f32_fold_order(fs_atomic_f32*, float, fs_fold, int order) noexcept
    float fs_f32_exchange(fs_atomic_f32*, float) noexcept
    float fs_f32_exchange_order(fs_atomic_f32*, float, int order) noexcept
    float fs_f32_fetch_add(fs_atomic_f32*, float) noexcept
    float fs_f32_fetch_add_order(fs_atomic_f32*, float, int order) noexcept
    float fs_f32_fetch_sub(fs_atomic_f32*, float) noexcept
    float fs_f32_fetch_sub_order(fs_atomic_f32*, float, int order) noexcept
    float fs_f32_fetch_max(fs_atomic_f32*, float) noexcept
    float fs_f32_fetch_max_order(fs_atomic_f32*, float, int order) noexcept
    float fs_f32_fetch_min(fs_atomic_f32*, float) noexcept
    float fs_f32_fetch_min_order(fs_atomic_f32*, float, int order) noexcept
