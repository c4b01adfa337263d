from .dataset import Dataset as Dataset
from .dataset import DatasetInfo as DatasetInfo
from .dataset import dataset_info as dataset_info
from .dataset import load_dataset as load_dataset
