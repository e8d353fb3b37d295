//! The names of ATA's SMART attributes. Vendors number them as they like; these are the meanings that most
//! share, with the names that smartctl gives them by default, which is what people look for.

/// The name of an attribute; `solid_state` decides where the two kinds of disks differ.
pub(super) fn name(id: u8, solid_state: bool) -> &'static str {
    let found = NAMES.binary_search_by_key(&id, |row| row.0).ok().and_then(|at| NAMES.get(at));
    let Some((_, disk, flash)) = found else { return UNKNOWN };
    if solid_state { flash } else { disk }
}

const UNKNOWN: &str = "Unknown_Attribute";
const NO_DISK: &str = "Unknown_HDD_Attribute";
const NO_FLASH: &str = "Unknown_SSD_Attribute";

/// Number, name on a disk that turns, name on one of flash.
#[rustfmt::skip]
const NAMES: &[(u8, &str, &str)] = &[
    (1, "Raw_Read_Error_Rate", "Raw_Read_Error_Rate"),
    (2, "Throughput_Performance", "Throughput_Performance"),
    (3, "Spin_Up_Time", "Spin_Up_Time"),
    (4, "Start_Stop_Count", "Start_Stop_Count"),
    (5, "Reallocated_Sector_Ct", "Reallocated_Sector_Ct"),
    (6, "Read_Channel_Margin", NO_FLASH),
    (7, "Seek_Error_Rate", NO_FLASH),
    (8, "Seek_Time_Performance", NO_FLASH),
    (9, "Power_On_Hours", "Power_On_Hours"),
    (10, "Spin_Retry_Count", NO_FLASH),
    (11, "Calibration_Retry_Count", NO_FLASH),
    (12, "Power_Cycle_Count", "Power_Cycle_Count"),
    (13, "Read_Soft_Error_Rate", "Read_Soft_Error_Rate"),
    (22, "Helium_Level", NO_FLASH),
    (23, "Helium_Condition_Lower", NO_FLASH),
    (24, "Helium_Condition_Upper", NO_FLASH),
    (175, NO_DISK, "Program_Fail_Count_Chip"),
    (176, NO_DISK, "Erase_Fail_Count_Chip"),
    (177, NO_DISK, "Wear_Leveling_Count"),
    (178, NO_DISK, "Used_Rsvd_Blk_Cnt_Chip"),
    (179, NO_DISK, "Used_Rsvd_Blk_Cnt_Tot"),
    (180, NO_DISK, "Unused_Rsvd_Blk_Cnt_Tot"),
    (181, "Program_Fail_Cnt_Total", "Program_Fail_Cnt_Total"),
    (182, NO_DISK, "Erase_Fail_Count_Total"),
    (183, "Runtime_Bad_Block", "Runtime_Bad_Block"),
    (184, "End-to-End_Error", "End-to-End_Error"),
    (187, "Reported_Uncorrect", "Reported_Uncorrect"),
    (188, "Command_Timeout", "Command_Timeout"),
    (189, "High_Fly_Writes", NO_FLASH),
    (190, "Airflow_Temperature_Cel", "Airflow_Temperature_Cel"),
    (191, "G-Sense_Error_Rate", NO_FLASH),
    (192, "Power-Off_Retract_Count", "Power-Off_Retract_Count"),
    (193, "Load_Cycle_Count", NO_FLASH),
    (194, "Temperature_Celsius", "Temperature_Celsius"),
    (195, "Hardware_ECC_Recovered", "Hardware_ECC_Recovered"),
    (196, "Reallocated_Event_Count", "Reallocated_Event_Count"),
    (197, "Current_Pending_Sector", "Current_Pending_Sector"),
    (198, "Offline_Uncorrectable", "Offline_Uncorrectable"),
    (199, "UDMA_CRC_Error_Count", "UDMA_CRC_Error_Count"),
    (200, "Multi_Zone_Error_Rate", NO_FLASH),
    (201, "Soft_Read_Error_Rate", NO_FLASH),
    (202, "Data_Address_Mark_Errs", NO_FLASH),
    (203, "Run_Out_Cancel", "Run_Out_Cancel"),
    (204, "Soft_ECC_Correction", "Soft_ECC_Correction"),
    (205, "Thermal_Asperity_Rate", "Thermal_Asperity_Rate"),
    (206, "Flying_Height", NO_FLASH),
    (207, "Spin_High_Current", NO_FLASH),
    (208, "Spin_Buzz", NO_FLASH),
    (209, "Offline_Seek_Performnce", NO_FLASH),
    (220, "Disk_Shift", NO_FLASH),
    (221, "G-Sense_Error_Rate", NO_FLASH),
    (222, "Loaded_Hours", NO_FLASH),
    (223, "Load_Retry_Count", NO_FLASH),
    (224, "Load_Friction", NO_FLASH),
    (225, "Load_Cycle_Count", NO_FLASH),
    (226, "Load-in_Time", NO_FLASH),
    (227, "Torq-amp_Count", NO_FLASH),
    (228, "Power-off_Retract_Count", "Power-off_Retract_Count"),
    (230, "Head_Amplitude", NO_FLASH),
    (231, "Temperature_Celsius", "Temperature_Celsius"),
    (232, "Available_Reservd_Space", "Available_Reservd_Space"),
    (233, NO_DISK, "Media_Wearout_Indicator"),
    (240, "Head_Flying_Hours", NO_FLASH),
    (241, "Total_LBAs_Written", "Total_LBAs_Written"),
    (242, "Total_LBAs_Read", "Total_LBAs_Read"),
    (250, "Read_Error_Retry_Rate", "Read_Error_Retry_Rate"),
    (254, "Free_Fall_Sensor", NO_FLASH),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_names_differ_by_kind() {
        assert!(NAMES.is_sorted_by(|a, b| a.0 < b.0));
        assert_eq!(name(5, false), "Reallocated_Sector_Ct");
        assert_eq!(name(177, true), "Wear_Leveling_Count");
        assert_eq!(name(177, false), NO_DISK);
        assert_eq!(name(0, true), UNKNOWN);
        assert_eq!(name(255, false), UNKNOWN);
    }
}
