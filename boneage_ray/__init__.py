"""boneage-ray: skeletal maturity from radiographs, trained and scored on Ray."""

__version__ = "0.1.0"

# What decides a result beside model and options: raised by hand when the same file gets another row or record, and only then.
# A folder of results is continued and updated by every version of the package that has the same number.
PIPELINE_VERSION = 4
