"""How the tests' own programs are compiled: each runs once or twice, so that LLVM polishing it, and splitting what is
small into modules for several threads, is most of what a test costs.
"""

FLAGS = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_parallel_codegen_split_count=1"
)
"""For `XLA_FLAGS`. Other ways to compile round differently: who compares bit by bit compiles both so."""
