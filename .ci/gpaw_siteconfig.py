"""How GPAW is compiled: one process, OpenBLAS, and FFTW for plane waves; GPAW_CONFIG names this file to pip."""

mpi = False
compiler = "gcc"
libraries = ["xc", "openblas", "fftw3"]
fftw = True
scalapack = False
extra_compile_args = ["-O3", "-fopenmp", "-std=c99", "-fPIC"]
extra_link_args = ["-fopenmp"]
