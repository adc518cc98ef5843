//! Tells what the results of built-in functions depend on. PostgreSQL creates these functions with the database cluster. Each has
//! the same OID in all versions of PostgreSQL that have it.
//!
//! The result of an immutable function depends on its arguments alone. The result of a stable function may also depend on rows,
//! definitions, the role, settings or the clock, for which pg_cache has rules, or on other state of the server, which nothing
//! tracks. A result of a query that calls a function of the last kind is not stored. The lists below name all stable functions of
//! PostgreSQL 15 to 18 that SQL can call; `tests/sessions/seen.rs` finds those that are missing.

/// The dependencies of a stable built-in function besides arguments, rows, definitions and the role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits(u8);

impl Traits {
    /// The function is in one of the lists.
    const KNOWN: u8 = 1;
    // The functions below explain the other bits.
    const STATE: u8 = 2;
    const SETTINGS: u8 = 4;
    const CLOCK: u8 = 8;
    const UNTRACKED: u8 = 16;

    /// Returns whether the function is in one of the lists. A stable built-in function that is not counts as one that reads the
    /// state of the server.
    pub fn is_known(self) -> bool {
        self.0 & Self::KNOWN != 0
    }

    /// Returns whether the function reads state of the server that nothing tracks.
    #[inline]
    pub fn reads_state(self) -> bool {
        self.0 & Self::STATE != 0
    }

    /// Returns whether the function reads settings by their names.
    pub fn reads_settings(self) -> bool {
        self.0 & Self::SETTINGS != 0
    }

    /// Returns whether the function may read the clock.
    pub fn reads_clock(self) -> bool {
        self.0 & Self::CLOCK != 0
    }

    /// Returns whether `cache_fetch` refuses the function. `cache_fetch` refuses only functions whose results no later change
    /// invalidates, so these are fewer than those of [`Self::reads_state`].
    #[inline]
    pub fn is_untracked(self) -> bool {
        self.0 & Self::UNTRACKED != 0
    }
}

/// Returns what is known about a function. The function need not be a built-in one.
#[inline]
pub fn traits(function: u32) -> Traits {
    Traits(TRAITS.get(function as usize).copied().unwrap_or(0))
}

/// One element for each OID up to the greatest of the lists: it is read for every function of every plan.
static TRAITS: [u8; 6402] = {
    let (state, settings, clock) = (Traits::STATE, Traits::SETTINGS, Traits::CLOCK);
    let traits = add([0; 6402], Traits::KNOWN, &[DATES, TEXTS, JSON, SEARCHES, TYPES, SURROUNDINGS]);
    let traits = add(traits, Traits::KNOWN | settings, &[SETTINGS]);
    let traits = add(traits, Traits::KNOWN | clock, &[CLOCK]);
    let refused = [STATISTICS, SESSION, TRANSACTIONS, NAMES, PRIVILEGES, CATALOGS, FILES, XML];
    let traits = add(traits, Traits::KNOWN | state, &refused);
    add(traits, Traits::UNTRACKED, &[UNTRACKED])
};

/// Adds flags to all functions of some lists.
const fn add(mut traits: [u8; 6402], flags: u8, lists: &[&[u32]]) -> [u8; 6402] {
    let mut list = 0;
    while list < lists.len() {
        let mut index = 0;
        while index < lists[list].len() {
            traits[lists[list][index] as usize] |= flags;
            index += 1;
        }
        list += 1;
    }
    traits
}

// Functions whose results depend on arguments, rows, definitions, the role, and the settings that the key of every result contains
// (`environment/digest.rs`).

/// Dates, times and intervals, and their text.
const DATES: &[u32] = &[
    939, 1085, 1151, 1160, 1161, 1171, 1174, 1176, 1178, 1189, 1190, 1217, 1284, 1305, 1306, 1307, 1313,
    1388, 1770, 1778, 1780, 2019, 2027, 2028, 2351, 2352, 2353, 2354, 2355, 2356, 2357, 2377, 2378, 2379,
    2380, 2381, 2382, 2383, 2520, 2521, 2522, 2523, 2524, 2525, 2526, 2527, 2528, 2529, 2530, 2531, 2532,
    2533, 2549, 3462, 3463, 4135, 6203, 6221, 6223, 6334, 6335,
];
/// `concat`, `format`, `to_char`, `to_number`, `quote_literal`, `array_to_string`, `convert_to`, `enum_range`, `money`, `xml`.
const TEXTS: &[u32] = &[
    384, 395, 1285, 1290, 1713, 1714, 1717, 1768, 1772, 1773, 1774, 1775, 1776, 1777, 1813, 2003, 2004, 2049,
    2896, 3051, 3058, 3059, 3528, 3529, 3530, 3531, 3539, 3540, 3811, 3812, 3823, 3824,
];
/// `to_json`, `to_jsonb`, `json_agg`, `jsonb_build_object` and the like.
const JSON: &[u32] = &[
    3153, 3154, 3155, 3156, 3173, 3175, 3176, 3180, 3197, 3198, 3199, 3200, 3201, 3265, 3266, 3267, 3268,
    3269, 3271, 3272, 3273, 3274, 3787, 4213, 4215, 6275, 6276, 6277, 6278, 6279, 6280, 6281, 6282, 6283,
    6284, 6285, 6286, 6287,
];
/// Text search: `to_tsvector`, `to_tsquery`, `ts_headline` and the like.
const SEARCHES: &[u32] =
    &[3714, 3716, 3749, 3750, 3751, 3754, 3755, 3760, 3761, 4203, 4204, 4207, 4208, 4209, 4210, 5001, 5009];
/// Input and output of types, except the input of dates and times and of types that name objects.
const TYPES: &[u32] = &[
    45, 197, 198, 751, 886, 887, 2213, 2215, 2217, 2219, 2221, 2291, 2297, 2400, 2401, 2402, 2403, 2414,
    2415, 2422, 2423, 2430, 2431, 2432, 2433, 2500, 2501, 2502, 2503, 2598, 2893, 2898, 2899, 3357, 3358,
    3406, 3407, 3505, 3506, 3507, 3532, 3533, 3737, 3772, 3832, 3833, 3835, 3836, 3837, 4085, 4092, 4194,
    4226, 4227, 4229, 4230, 4232, 4233, 4234, 4598, 4599, 4640, 4641, 5020, 5021, 5089, 5090, 5091, 5094,
    5095,
];
/// `current_user`, `current_database`, `version`, `pg_has_role`, `pg_typeof`, `pg_column_size` and the like.
const SURROUNDINGS: &[u32] = &[
    89, 710, 745, 746, 861, 1031, 1032, 1039, 1264, 1269, 1597, 1619, 1642, 1686, 1689, 2121, 2289, 2705,
    2706, 2707, 2708, 2709, 2710, 3427, 3759,
];

// Functions that read any setting by its name, and functions that read the clock.

/// `pg_client_encoding`, `current_setting` and `pg_settings_get_flags`.
const SETTINGS: &[u32] = &[810, 2077, 3294, 6240];
/// `now` and the like, `age` with one argument, the input of dates and times. Functions that may convert a text to a date: the
/// input of arrays, records, ranges and domains, and `json_to_record` and `json_populate_record` in all forms. Functions that need
/// the present offset of the time zone: `timetz`, `timezone` of a `timetz`, `jsonb_path_query_tz` and the like.
const CLOCK: &[u32] = &[
    750, 1084, 1143, 1150, 1177, 1179, 1180, 1299, 1312, 1350, 1386, 2023, 2030, 2037, 2047, 2059, 2290,
    2597, 2647, 2648, 3204, 3205, 3209, 3475, 3490, 3491, 3834, 3960, 3961, 4231, 6336, 6338,
];

// Functions whose results depend on other state of the server, which nothing tracks.

/// Statistics of the server, and the times of its start.
const STATISTICS: &[u32] = &[
    1136, 1391, 1392, 1393, 1928, 1929, 1930, 1931, 1932, 1933, 1934, 1935, 1936, 1937, 1938, 1939, 1940,
    1941, 1942, 1943, 1944, 1945, 1972, 2022, 2034, 2094, 2306, 2560, 2758, 2759, 2760, 2761, 2762, 2769,
    2770, 2771, 2772, 2773, 2775, 2781, 2782, 2783, 2784, 2788, 2844, 2845, 2853, 2857, 2859, 2878, 2879,
    2978, 2979, 2980, 3054, 3055, 3056, 3057, 3063, 3065, 3066, 3067, 3068, 3069, 3070, 3074, 3075, 3099,
    3150, 3151, 3152, 3160, 3161, 3163, 3177, 3195, 3317, 3318, 3426, 3428, 3788, 4099, 5053, 6107, 6118,
    6169, 6185, 6186, 6187, 6188, 6189, 6190, 6191, 6217, 6231, 6309, 6310, 6314, 6327, 6328, 6329, 6355,
    6356, 6358, 6359, 6360, 6361, 6366, 6377,
];
/// The session: its process, its connection, its cursors, prepared statements, channels and temporary schema.
const SESSION: &[u32] = &[
    1402, 1403, 2026, 2084, 2196, 2197, 2198, 2199, 2510, 2511, 2854, 2855, 3035, 3566, 4566, 4567, 4568,
    6311,
];
/// The transaction: its id and its snapshot, and ages of transactions.
const TRANSACTIONS: &[u32] = &[1181, 2943, 2944, 3348, 3939, 5059, 5060, 5061];
/// Names of objects: `to_regclass` and the like, the input of types such as `regclass`, `pg_table_is_visible` and the like,
/// `pg_input_is_valid`.
const NAMES: &[u32] = &[
    44, 1079, 2079, 2080, 2081, 2082, 2083, 2093, 2212, 2214, 2216, 2218, 2220, 3403, 3476, 3479, 3492, 3493,
    3494, 3495, 3736, 3756, 3757, 3758, 3768, 3771, 3815, 3829, 4084, 4086, 4093, 4098, 4193, 4195, 6210,
    6211, 6317,
];
/// `has_table_privilege` and the like, `row_security_active`, `pg_get_acl`.
const PRIVILEGES: &[u32] = &[
    1922, 1923, 1924, 1925, 1926, 1927, 2181, 2182, 2183, 2184, 2185, 2186, 2250, 2251, 2252, 2253, 2254,
    2255, 2256, 2257, 2258, 2259, 2260, 2261, 2262, 2263, 2264, 2265, 2266, 2267, 2268, 2269, 2270, 2271,
    2272, 2273, 2390, 2391, 2392, 2393, 2394, 2395, 3000, 3001, 3002, 3003, 3004, 3005, 3006, 3007, 3008,
    3009, 3010, 3011, 3012, 3013, 3014, 3015, 3016, 3017, 3018, 3019, 3020, 3021, 3022, 3023, 3024, 3025,
    3026, 3027, 3028, 3029, 3138, 3139, 3140, 3141, 3142, 3143, 3298, 3299, 6205, 6206, 6207, 6348, 6349,
    6350, 6385,
];
/// Definitions in words: `pg_get_viewdef` and the like, `format_type`, `obj_description`, `pg_identify_object`.
const CATALOGS: &[u32] = &[
    636, 637, 638, 1081, 1215, 1216, 1348, 1349, 1387, 1573, 1640, 1641, 1643, 1662, 1665, 1716, 1993, 2098,
    2162, 2165, 2232, 2504, 2505, 2506, 2507, 2508, 2509, 2730, 3078, 3159, 3162, 3352, 3382, 3408, 3415,
    3537, 3781, 3808, 3839, 3842, 3843, 3954, 6119, 6120, 6121, 6159, 6173, 6174, 6183, 6184, 6197, 6315,
];
/// Files, extensions that could be installed, time zones, replication slots and origins.
const FILES: &[u32] =
    &[2556, 2599, 2856, 2999, 3034, 3082, 3083, 3084, 3400, 3454, 3778, 6005, 6213, 6316, 6401];
/// Whole tables, schemas and databases as XML.
const XML: &[u32] = &[2923, 2926, 2929, 2933, 2934, 2935, 2936, 2937, 2938];

/// The functions that `cache_fetch` refuses, because no change of what they read invalidates a stored result: indexes, files,
/// constraints, triggers, statistics, publications, replication origins and slots, new schemas, and names of relations.
///
/// In this order: `pg_indexam_has_property`, `pg_index_has_property`, `pg_index_column_has_property`, `regclass`,
/// `pg_get_constraintdef`, `pg_get_indexdef`, `pg_get_triggerdef`, `pg_get_serial_sequence`, `pg_table_is_visible`,
/// `pg_get_indexdef`, `pg_get_constraintdef`, `pg_tablespace_databases`, `pg_get_triggerdef`, `pg_relation_filenode`,
/// `pg_relation_filepath`, `pg_listening_channels`, `pg_available_extensions`, `pg_available_extension_versions`,
/// `pg_extension_update_paths`, `pg_identify_object_as_address`, `pg_statistics_obj_is_visible`, `pg_get_statisticsobjdef`,
/// `pg_filenode_relation`, `to_regclass`, `pg_describe_object`, `pg_tablespace_location`, `pg_get_replication_slots`,
/// `pg_identify_object`, `pg_relation_is_updatable`, `pg_column_is_updatable`, `pg_get_object_address`, `to_regnamespace`,
/// `pg_replication_origin_oid`, `pg_get_publication_tables`, `pg_get_replica_identity_index`, `pg_relation_is_publishable`,
/// `pg_get_statisticsobjdef_expressions`, `pg_get_statisticsobjdef_columns`, `pg_get_function_sqlbody`.
const UNTRACKED: &[u32] = &[
    636, 637, 638, 1079, 1387, 1643, 1662, 1665, 2079, 2507, 2508, 2556, 2730, 2999, 3034, 3035, 3082, 3083,
    3084, 3382, 3403, 3415, 3454, 3495, 3537, 3778, 3781, 3839, 3842, 3843, 3954, 4086, 6005, 6119, 6120,
    6121, 6173, 6174, 6197,
];
